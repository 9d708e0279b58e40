"""Which runtimes there are, and how a version's runtime is made from its registration.

A runtime's module is imported when the first version of it is made: NumPy and an HTTP client take
longer than a verb of the command line, which needs neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias, TypeVar

import msgspec

from engine.runtimes.configs import EchoConfig, LanguageConfig, PythonConfig
from engine.runtimes.echo import EchoRuntime
from engine.runtimes.runtime import LoadFailed, Runtime, RuntimeSettings
from events.catalogue.models import VersionRegistered

Factory: TypeAlias = Callable[[VersionRegistered, RuntimeSettings], Runtime]
Config = TypeVar("Config")


def create_runtime(registered: VersionRegistered, settings: RuntimeSettings) -> Runtime:
    """A runtime that is not loaded yet. Raises LoadFailed if this node has none for the version."""
    if registered.runtime not in available_runtimes(settings):
        raise LoadFailed("runtime", f"runtime {registered.runtime!r} is not available on this node")
    return RUNTIMES[registered.runtime](registered, settings)


def available_runtimes(settings: RuntimeSettings) -> tuple[str, ...]:
    """What this node can execute, as it announces in NodeJoined."""
    return tuple(name for name in RUNTIMES if name != "python" or settings.python_enabled)


def _echo(registered: VersionRegistered, settings: RuntimeSettings) -> Runtime:
    return EchoRuntime(_config(registered, EchoConfig))


def _python(registered: VersionRegistered, settings: RuntimeSettings) -> Runtime:
    if registered.artifact is None:
        raise LoadFailed("artifact", "a python version needs an artifact")
    from engine.runtimes.python import PythonRuntime

    return PythonRuntime(_config(registered, PythonConfig), registered.artifact, settings)


def _language(registered: VersionRegistered, settings: RuntimeSettings) -> Runtime:
    if registered.artifact is None:
        raise LoadFailed("artifact", "a language model needs an artifact")
    from engine.runtimes.language_model import LanguageRuntime

    return LanguageRuntime(_config(registered, LanguageConfig), registered.artifact, settings)


def _upstream(registered: VersionRegistered, settings: RuntimeSettings) -> Runtime:
    from engine.runtimes.upstream.config import UpstreamConfig
    from engine.runtimes.upstream.runtime import UpstreamRuntime

    return UpstreamRuntime(_config(registered, UpstreamConfig), settings)


def _config(registered: VersionRegistered, type_: type[Config]) -> Config:
    try:
        return msgspec.convert(registered.config, type_)
    except msgspec.ValidationError as error:
        raise LoadFailed("runtime", f"config: {error}") from error


RUNTIMES: Final[Mapping[str, Factory]] = MappingProxyType(
    {"echo": _echo, "python": _python, "language-model": _language, "upstream": _upstream}
)
"""Name -> how one is made."""

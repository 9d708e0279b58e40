"""Registrations: what the body of a model or a version must look like.

Whether parents exist, and which runtimes a build has, is decided in `engine.decisions.model`;
whether an artifact is where it says and has that digest is checked by the node that loads it. What
was released as a built-in model is known here already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import chain
from math import isfinite
from typing import Any, Final, TypeAlias

import msgspec

from engine.runtimes.configs import EchoConfig, LanguageConfig, PythonConfig
from engine.runtimes.language.builtin import BUILTIN, SCHEME
from engine.runtimes.upstream.config import UpstreamConfig
from events.catalogue.models import Artifact, ModelRegistered, VersionRegistered
from events.event import IDENTIFIER

VERSION_CHARS_MAX: Final = 64
DESCRIPTION_CHARS_MAX: Final = 2_000
LABELS_MAX: Final = 64
LABEL_NAME_CHARS_MAX: Final = 64
LABEL_VALUE_CHARS_MAX: Final = 256
METRICS_MAX: Final = 64
CONFIG_BYTES_MAX: Final = 16_384
CONFIG_DEPTH_MAX: Final = 32
"""Of lists and objects inside each other; encoders recurse."""
URI_CHARS_MAX: Final = 2_048
BYTES_MAX: Final = 2**63 - 1

# https://semver.org, version 2.0.0: numbers have no leading zeros, empty identifiers do not exist.
_NUMBER: Final = r"(?:0|[1-9][0-9]*)"
_PRE_RELEASE: Final = rf"(?:{_NUMBER}|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_BUILD: Final = r"[0-9A-Za-z-]+"
SEMVER: Final = re.compile(
    rf"{_NUMBER}\.{_NUMBER}\.{_NUMBER}"
    rf"(?:-{_PRE_RELEASE}(?:\.{_PRE_RELEASE})*)?"
    rf"(?:\+{_BUILD}(?:\.{_BUILD})*)?\Z"
)
_SHA256: Final = re.compile(r"[0-9a-f]{64}\Z")
_SCHEMES: Final = ("file:///", "builtin://")

Problem: TypeAlias = tuple[str, str]
"""(path, what is wrong with it)."""


def model_problems(model: ModelRegistered) -> dict[str, str]:
    """Path -> what is wrong there; empty if the model may be registered."""
    return dict(chain(_model(model), _labels(model.labels)))


def version_problems(version: VersionRegistered) -> dict[str, str]:
    """Path -> what is wrong there; empty if the version may be registered."""
    return dict(
        chain(
            _identity(version),
            _config(version),
            _artifact(version.artifact),
            _labels(version.labels),
            _metrics(version.metrics),
        )
    )


def is_semver(version: str) -> bool:
    """By the grammar of semver.org, and not too long."""
    return len(version) <= VERSION_CHARS_MAX and SEMVER.match(version) is not None


def is_version_name(name: str) -> bool:
    """`model@version`."""
    model, _, version = name.partition("@")
    return IDENTIFIER.match(model) is not None and is_semver(version)


def _model(model: ModelRegistered) -> Iterator[Problem]:
    if not IDENTIFIER.match(model.name):
        yield "name", "must be 1 to 64 of A-Z a-z 0-9 _ -, not beginning with _ -"
    if len(model.description) > DESCRIPTION_CHARS_MAX:
        yield "description", f"must have at most {DESCRIPTION_CHARS_MAX} characters"


def _identity(version: VersionRegistered) -> Iterator[Problem]:
    if not is_semver(version.version):
        yield "version", f"must be a semantic version of at most {VERSION_CHARS_MAX} characters"
    if version.parent is not None and not is_version_name(version.parent):
        yield "parent", "must be model@version"
    if version.memory_bytes is not None and not 0 < version.memory_bytes <= BYTES_MAX:
        yield "memory_bytes", f"must be 1 to {BYTES_MAX}"


def _artifact(artifact: Artifact | None) -> Iterator[Problem]:
    if artifact is None:
        return
    if len(artifact.uri) > URI_CHARS_MAX or not artifact.uri.startswith(_SCHEMES):
        schemes = " or ".join(_SCHEMES)
        yield (
            "artifact.uri",
            f"must begin with {schemes} and have at most {URI_CHARS_MAX} characters",
        )
    if not artifact.uri.isprintable():
        yield "artifact.uri", "must be printable"
    if not _SHA256.match(artifact.sha256):
        yield "artifact.sha256", "must be 64 lower-case hex digits"
    if not 0 <= artifact.size_bytes <= BYTES_MAX:
        yield "artifact.size_bytes", f"must be 0 to {BYTES_MAX}"
    yield from _builtin(artifact)


def _builtin(artifact: Artifact) -> Iterator[Problem]:
    scheme, _, name = artifact.uri.rpartition("/")
    released = BUILTIN.get(name) if f"{scheme}/" == SCHEME else None
    if released is not None:
        if artifact.sha256 != released.sha256:
            yield "artifact.sha256", f"must be {released.sha256}, as {name} was released"
        if artifact.size_bytes != released.size_bytes:
            yield "artifact.size_bytes", f"must be {released.size_bytes}, as {name} was released"


def _labels(labels: Mapping[str, str]) -> Iterator[Problem]:
    if len(labels) > LABELS_MAX:
        yield "labels", f"must be at most {LABELS_MAX}"
    for name, value in labels.items():
        path = f"labels.{name[:LABEL_NAME_CHARS_MAX]}"
        if not 1 <= len(name) <= LABEL_NAME_CHARS_MAX:
            yield path, f"must have a name of 1 to {LABEL_NAME_CHARS_MAX} characters"
        elif len(value) > LABEL_VALUE_CHARS_MAX:
            yield path, f"must have at most {LABEL_VALUE_CHARS_MAX} characters"


def _metrics(metrics: Mapping[str, float]) -> Iterator[Problem]:
    if len(metrics) > METRICS_MAX:
        yield "metrics", f"must be at most {METRICS_MAX}"
    for name, value in metrics.items():
        path = f"metrics.{name[:LABEL_NAME_CHARS_MAX]}"
        if not 1 <= len(name) <= LABEL_NAME_CHARS_MAX:
            yield path, f"must have a name of 1 to {LABEL_NAME_CHARS_MAX} characters"
        elif not isfinite(value):
            yield path, "must be a finite number"


# ------------------------------------------------------------------- The configuration of runtimes


class Runtime(msgspec.Struct, frozen=True, kw_only=True):
    """What a runtime asks of a version's body."""

    config: type[msgspec.Struct]
    """Its fields are what `config` may and must hold."""
    needs_artifact: bool


RUNTIMES: Final[Mapping[str, Runtime]] = {
    "echo": Runtime(config=EchoConfig, needs_artifact=False),
    "python": Runtime(config=PythonConfig, needs_artifact=True),
    "language-model": Runtime(config=LanguageConfig, needs_artifact=True),
    "upstream": Runtime(config=UpstreamConfig, needs_artifact=False),
}
"""The runtimes whose versions can be registered."""


def _config(version: VersionRegistered) -> Iterator[Problem]:
    if not _is_shallow(version.config):
        yield "config", f"must nest at most {CONFIG_DEPTH_MAX} deep"
        return
    if len(msgspec.json.encode(version.config)) > CONFIG_BYTES_MAX:
        yield "config", f"must have at most {CONFIG_BYTES_MAX} bytes of JSON"
        return
    if not _is_portable(version.config):
        yield "config", "must hold no integer beyond 64 bits"
        return
    runtime = RUNTIMES[version.runtime]
    if runtime.needs_artifact and version.artifact is None:
        yield "artifact", "is missing"
    problems = dict(_fields(version, runtime))
    yield from problems.items()
    if not problems:
        yield from _together(version.config, runtime)


def _fields(version: VersionRegistered, runtime: Runtime) -> Iterator[Problem]:
    fields = {field.name: field for field in msgspec.structs.fields(runtime.config)}
    for name, field in fields.items():
        if field.required and name not in version.config:
            yield f"config.{name}", "is missing"
    for name, value in version.config.items():
        path = f"config.{name[:LABEL_NAME_CHARS_MAX]}"
        if name not in fields:
            yield path, f"is not known to runtime {version.runtime}"
        elif (problem := _misfit(value, fields[name].type)) is not None:
            yield path, problem


def _together(config: Mapping[str, Any], runtime: Runtime) -> Iterator[Problem]:
    """Fields that are right each, and do not go together: `<field>: <problem>`, says the type."""
    try:
        msgspec.convert(config, runtime.config)
    except msgspec.ValidationError as error:
        field, _, problem = str(error).partition(": ")
        if field in {each.name for each in msgspec.structs.fields(runtime.config)}:
            yield f"config.{field}", problem
        else:
            yield "config", str(error)


def _misfit(value: Any, type_: Any) -> str | None:
    if isinstance(value, float) and not isfinite(value):
        return "must be a finite number"
    try:
        msgspec.convert(value, type_)
    except msgspec.ValidationError as error:
        return str(error)
    return None


def _is_portable(config: Mapping[str, Any]) -> bool:
    # What states are kept and sent in besides JSON is MessagePack.
    try:
        msgspec.msgpack.encode(config)
    except OverflowError:
        return False
    return True


def _is_shallow(config: Mapping[str, Any]) -> bool:
    level: list[Any] = [config]
    for _ in range(CONFIG_DEPTH_MAX):
        level = [inner for outer in level for inner in _containers(outer)]
    return not level


def _containers(outer: dict[str, Any] | list[Any]) -> list[Any]:
    members = outer.values() if isinstance(outer, dict) else outer
    return [member for member in members if isinstance(member, dict | list)]

"""Everything that can be configured, read from the environment, checked once, named in errors.

A variable is `SWITCHBACK_` and the setting's name in capitals. The command line overrides it.
"""

from __future__ import annotations

import hmac
import importlib
import re
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeAlias

import msgspec
import psutil

from engine.runtimes.runtime import UPSTREAM_KEYS
from switchback.private_files import write_private

PREFIX: Final = "SWITCHBACK_"
MIB: Final = 1024 * 1024
SECRET_CHARS_MIN: Final = 32
_COMPARE: Final = PREFIX + "COMPARE_FUNCTIONS"
_CHECK: Final = PREFIX + "CHECK_FUNCTIONS"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_CALLABLE: Final = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*(\.\w+)*")

Function: TypeAlias = Callable[[Any, Any], bool]


class SettingInvalid(Exception):
    """A setting that cannot be used; `name` is its environment variable."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name


def _half_the_memory() -> int:
    return int(psutil.virtual_memory().total // 2)


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """See docs/operations.md for advice on each."""

    data_dir: Path = Path(".switchback")
    """Everything `up` keeps: servers, credentials, secrets."""
    host: str = "127.0.0.1"
    port: int = 8700
    """Of HTTP; 0 takes a free one."""
    nats_url: str | None = None
    """External NATS, `nats://...`, several separated by commas; None embeds one."""
    nats_replicas: int = 1
    """Of every stream; 3 in production."""
    postgres_dsn: str | None = None
    redis_url: str | None = None
    node_id: str = "local"
    """Unique among nodes, the same after a restart."""
    gateway_id: str = "local"
    """For people: a process adds to it what makes it unique."""
    node_memory_bytes: int = msgspec.field(default_factory=_half_the_memory)
    """What resident versions may use together on this node."""
    artifact_roots: tuple[Path, ...] = ()
    """Directories below which `file://` artifacts may lie, separated by `:`; besides
    `<data dir>/artifacts`."""
    python_runtime: bool = True
    """Whether versions may bring Python code."""
    python_memory_bytes: int = 2048 * MIB
    """Address space of one python version's process."""
    upstream_keys: tuple[str, ...] = UPSTREAM_KEYS
    """Patterns, separated by commas, of the environment variables that versions may name as the key
    of their upstream."""
    inference_body_bytes_max: int = 8 * MIB
    inference_timeout_s: float = 60.0
    compare_functions: dict[str, str] = {}
    """What shadows may be compared by, `name=module:callable`, separated by commas: callables of
    two outputs, the answer that was returned and the shadow's, that return a bool."""
    check_functions: dict[str, str] = {}
    """What rollouts may check answers by, written likewise: callables of a request's inputs and the
    outputs that answered it, that return whether the answer is good."""
    secret: str | None = None
    """What receipts are signed with and keys are derived from, the same for every gateway of one
    system, at least 32 characters; None makes one in the data directory."""
    lease_ttl_s: float = 3.0
    """How long a silent node, gateway or reactor counts as alive."""
    burst_alerts: bool = True
    """Whether a version that plainly fails raises a critical alert by itself, and is rolled back;
    rollouts are watched by their own tests in any case."""
    alert_quiet_s: float = 300.0
    """An alert clears by itself when its cause was not seen for so long."""

    def __post_init__(self) -> None:
        for name, low, high in _BOUNDS:
            value = getattr(self, name)
            if not low <= value <= high:
                raise SettingInvalid(
                    PREFIX + name.upper(), f"{value} is not within {low} and {high}"
                )
        for variable, named in (
            (_COMPARE, self.compare_functions),
            (_CHECK, self.check_functions),
        ):
            for name, where in named.items():
                if not _NAME.fullmatch(name) or not _CALLABLE.fullmatch(where):
                    raise SettingInvalid(variable, f"{name}={where} is not `name=module:callable`")
        if self.secret is not None and len(self.secret) < SECRET_CHARS_MIN:
            raise SettingInvalid(PREFIX + "SECRET", f"shorter than {SECRET_CHARS_MIN} characters")

    @property
    def all_artifact_roots(self) -> tuple[Path, ...]:
        return (self.data_dir / "artifacts", *self.artifact_roots)

    def comparators(self) -> dict[str, Function]:
        """The functions of `compare_functions`, imported. Raises SettingInvalid."""
        return _all_imported(_COMPARE, self.compare_functions)

    def checks(self) -> dict[str, Function]:
        """The functions of `check_functions`, imported. Raises SettingInvalid."""
        return _all_imported(_CHECK, self.check_functions)

    def derive(self, purpose: str) -> bytes:
        """A key for one purpose, from the secret."""
        return hmac.digest(self._secret(), purpose.encode(), "sha256")

    def _secret(self) -> bytes:
        if self.secret is not None:
            return self.secret.encode()
        path = self.data_dir / "secret"
        if not path.exists():
            write_private(path, secrets.token_bytes(SECRET_CHARS_MIN))
        return path.read_bytes()


_BOUNDS: Final = (
    ("port", 0, 65535),
    ("nats_replicas", 1, 5),
    ("node_memory_bytes", MIB, 1 << 50),
    ("python_memory_bytes", 64 * MIB, 1 << 50),
    ("inference_body_bytes_max", 1024, 1024 * MIB),
    ("inference_timeout_s", 0.1, 3600.0),
    ("lease_ttl_s", 1.0, 300.0),
    ("alert_quiet_s", 1.0, 30 * 24 * 3600.0),
)


def settings_from(environment: Mapping[str, str], **overrides: Any) -> Settings:
    """Settings from `SWITCHBACK_*` variables; `overrides` that are not None win.

    Raises SettingInvalid, also for a variable that names no setting.
    """
    known = {PREFIX + field.name.upper(): field for field in msgspec.structs.fields(Settings)}
    values: dict[str, Any] = {}
    for variable, text in environment.items():
        if not variable.startswith(PREFIX) or variable in _FOR_OTHERS:
            continue
        if variable not in known:
            raise SettingInvalid(variable, "no such setting")
        field = known[variable]
        raw = _WRITTEN[field.name](text) if field.name in _WRITTEN else text
        try:
            values[field.name] = msgspec.convert(raw, field.type, strict=False, dec_hook=_path)
        except msgspec.ValidationError as error:
            raise SettingInvalid(variable, str(error)) from None
    values |= {name: value for name, value in overrides.items() if value is not None}
    return Settings(**values)


_FOR_OTHERS: Final = frozenset({PREFIX + "URL", PREFIX + "KEY", PREFIX + "CITUS_DSN"})
"""Read by the client and by the tests."""


def _named(variable: str, text: str) -> dict[str, str]:
    """`name=where` for each part. Raises SettingInvalid."""
    named: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(","))):
        name, _, where = part.partition("=")
        if name in named:
            raise SettingInvalid(variable, f"{name} occurs twice")
        named[name] = where
    return named


_WRITTEN: Final[Mapping[str, Callable[[str], Any]]] = {
    "artifact_roots": lambda text: text.split(":"),
    "upstream_keys": lambda text: [part for part in map(str.strip, text.split(",")) if part],
    "compare_functions": partial(_named, _COMPARE),
    "check_functions": partial(_named, _CHECK),
}
"""How settings that hold several values are read."""


def _all_imported(variable: str, named: Mapping[str, str]) -> dict[str, Function]:
    return {name: _imported(variable, name, where) for name, where in named.items()}


def _imported(variable: str, name: str, where: str) -> Function:
    module, _, attribute = where.partition(":")
    try:
        found = attrgetter(attribute)(importlib.import_module(module))
    except Exception as error:  # whatever the module does while it is imported
        raise SettingInvalid(
            variable, f"{name}={where}: {type(error).__name__}: {error}"
        ) from error
    if not callable(found):
        raise SettingInvalid(variable, f"{name}={where} cannot be called")
    function: Function = found
    return function


def _path(type_: type, value: Any) -> Any:
    if type_ is Path:
        return Path(value)
    raise NotImplementedError(type_)

"""Models and their versions. Entity `<tenant>/model/<name>`."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, TypeAlias

import msgspec

from events.event import Event

RuntimeName: TypeAlias = Literal["echo", "python", "language-model", "upstream"]


class Artifact(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The files of a version, by place, digest and size."""

    uri: str
    """`file:///...` under a configured root, or `builtin://...`."""
    sha256: str
    """Hex digest of the file; of a directory, see engine.runtimes.artifacts."""
    size_bytes: int


class ModelRegistered(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.model.registered.v1"
    name: str
    description: str = ""
    labels: dict[str, str] = {}


class VersionRegistered(Event, frozen=True, kw_only=True, omit_defaults=True):
    """An immutable build of the model. v1 had no `artifact` of its own, see events.upcasts."""

    type: ClassVar[str] = "switchback.model.version_registered.v2"
    version: str
    runtime: RuntimeName
    config: dict[str, Any] = {}
    artifact: Artifact | None = None
    parent: str | None = None
    """`model@version` of the version this one was made from."""
    memory_bytes: int | None = None
    """What the owner expects it to need; nodes measure."""
    labels: dict[str, str] = {}
    metrics: dict[str, float] = {}


class AliasMoved(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.model.alias_moved.v1"
    alias: str
    from_version: str | None = None
    to_version: str


class VersionRetired(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.model.version_retired.v1"
    version: str


EVENTS: tuple[type[Event], ...] = (ModelRegistered, VersionRegistered, AliasMoved, VersionRetired)

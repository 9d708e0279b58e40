"""Nodes: processes that execute versions, and what each holds. Entity `system/node/<id>`."""

from __future__ import annotations

from typing import ClassVar, Literal

import msgspec

from events.event import Event


class VersionRef(msgspec.Struct, frozen=True, order=True):
    """A version of a tenant's model, named in full."""

    tenant: str
    model: str
    version: str

    def __str__(self) -> str:
        return f"{self.tenant}/{self.model}@{self.version}"


class NodeJoined(Event, frozen=True, kw_only=True, omit_defaults=True):
    """A node (re)started: nothing is resident on it yet."""

    type: ClassVar[str] = "switchback.node.joined.v1"
    memory_budget_bytes: int
    runtimes: tuple[str, ...]


class NodeDraining(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The node finishes what it has and takes no new version."""

    type: ClassVar[str] = "switchback.node.draining.v1"
    reason: str = ""


class NodeLost(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The node's lease ran out: nothing on it counts as resident."""

    type: ClassVar[str] = "switchback.node.lost.v1"
    reason: str = ""


class NodeLeft(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The node stopped cleanly."""

    type: ClassVar[str] = "switchback.node.left.v1"


class VersionLoaded(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Loaded and warmed: it may take traffic on this node."""

    type: ClassVar[str] = "switchback.node.version_loaded.v1"
    version: VersionRef
    memory_bytes: int
    """Measured after warming."""
    load_ms: float


class VersionLoadFailed(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.node.version_load_failed.v1"
    version: VersionRef
    reason: Literal["artifact", "digest", "runtime", "memory", "timeout"]
    detail: str


class VersionUnloaded(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.node.version_unloaded.v1"
    version: VersionRef
    reason: Literal["evicted", "retired", "requested", "crashed"]


EVENTS: tuple[type[Event], ...] = (
    NodeJoined,
    NodeDraining,
    NodeLost,
    NodeLeft,
    VersionLoaded,
    VersionLoadFailed,
    VersionUnloaded,
)

"""What the control API answers with: the shapes of the contract, beside those of `projections`."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from events.catalogue.tenants import Scope
from events.event import Position


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A command was accepted."""

    position: Position
    """Of the event it led to; of the first time when nothing changed."""
    changed: bool
    """False: everything was so already, and nothing was written."""


class ModelApplied(Applied, frozen=True, kw_only=True):
    """As of `position`."""

    aliases: dict[str, str]


class VersionApplied(Applied, frozen=True, kw_only=True):
    """As of `position`."""

    state: Literal["registered", "retired"]


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """`key` is the secret, shown this once."""

    position: Position
    id: str
    key: str
    scopes: tuple[Scope, ...]
    expires_at: datetime | None


class RollbackView(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"from_": "from"}
):
    """A rollback that every live gateway has applied."""

    from_: str
    to: str
    reason: str
    duration_ms: float
    position: Position


class ExplainedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The event that made a decision so."""

    id: str
    type: str
    time: datetime
    actor: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which version a key gets, by which rule, and because of which event."""

    endpoint: str
    version: str
    bucket: int
    rule: str | None
    """None: the split outside every rule."""
    position: Position
    event: ExplainedEvent
    valid: bool | None = None
    """Of a receipt: whether recomputing gives what it says."""


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part of the process, in `/readyz`."""

    state: Literal["ok", "degraded", "down"]
    required: bool
    """Not ready while a required part is down."""
    detail: str | None = None
    position: Position | None = None
    lag: int | None = None
    """Events it has not applied yet."""
    skipped: int | None = None
    """Events it was told to pass over."""


class CompareView(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions by the traffic of the last while."""

    endpoint: str
    since_s: float
    baseline: str
    candidate: str
    rollout: str | None
    """Of the live rollout, when these are its versions."""


class ShadowView(msgspec.Struct, frozen=True, kw_only=True):
    """Every version that was sent copies in the last while."""

    endpoint: str
    since_s: float

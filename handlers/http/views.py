"""What the control API answers with: the shapes of the contract, beside those of `projections`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from events.catalogue.endpoints import Policy, Severity
from events.catalogue.tenants import Scope
from events.event import Position


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request comes from."""

    tenant: str
    key_id: str
    scopes: frozenset[Scope]


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A command was accepted."""

    position: Position
    """Of the event it led to; of the first time when nothing changed."""
    changed: bool
    """False: everything was so already, and nothing was written."""


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """`key` is the secret, shown this once."""

    position: Position
    id: str
    key: str
    scopes: tuple[Scope, ...]
    expires_at: datetime | None


class AliasMove(msgspec.Struct, frozen=True, kw_only=True):
    position: Position
    from_version: str | None
    to_version: str


class SwapView(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"from_": "from"}
):
    """A swap under way or ended, as the contract shows it."""

    id: str
    from_: str
    to: str
    state: Literal["requested", "completed", "failed"]
    position: Position
    duration_ms: float | None = None
    reason: str | None = None
    detail: str | None = None


class RollbackView(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"from_": "from"}
):
    """A rollback that every live gateway has applied."""

    from_: str
    to: str
    reason: str
    duration_ms: float
    position: Position


class AlertView(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: str
    severity: Severity
    detail: str
    version: str | None
    raised_at: datetime


class EndpointView(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint as it is, or as it was at a position."""

    name: str
    model: str
    policy: Policy
    active: str | None
    """The version that carries all traffic; None while it is split."""
    previous: str | None
    """Where a rollback would go."""
    rollout: dict[str, Any] | None
    swap: SwapView | None
    alerts: tuple[AlertView, ...]
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
    bucket: float
    rule: str | None
    position: Position
    event: ExplainedEvent
    valid: bool | None = None
    """Of a receipt: whether recomputing gives what it says."""


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """One answered inference request and the proof of its route."""

    outputs: Any
    version: str
    position: Position
    receipt: str
    rule: str | None
    overhead_ms: float
    attempts: int
    request_id: str


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

"""What queries answer with, in the shapes of the control API. Every item has its `position`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

import msgspec

from events.catalogue.endpoints import Analysis, Policy, Severity, Step, Verdict
from events.catalogue.models import Artifact
from events.catalogue.tenants import Quota, Scope
from events.event import Position

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A stretch of a list."""

    items: list[T]
    next: str | None
    """Pass it as `after` to go on; None at the end."""


class Model(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str
    labels: dict[str, str]
    aliases: dict[str, str]
    """Alias -> version."""
    registered_at: datetime
    position: Position


class Residency(msgspec.Struct, frozen=True, kw_only=True):
    """A version on a node."""

    node: str
    state: Literal["resident", "failed"]
    memory_bytes: int
    load_ms: float
    reason: str | None
    """Why loading failed."""
    detail: str | None


class Version(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    version: str
    runtime: str
    config: dict[str, Any]
    artifact: Artifact | None
    parent: str | None
    memory_bytes: int | None
    labels: dict[str, str]
    metrics: dict[str, float]
    state: Literal["registered", "retired"]
    residency: list[Residency]
    registered_at: datetime
    position: Position


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """`model@version`, nearest first."""

    ancestors: list[str]
    descendants: list[str]


class Alias(msgspec.Struct, frozen=True, kw_only=True):
    model: str
    alias: str
    version: str
    position: Position


class AliasMove(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    who: str
    when: datetime
    from_: str | None
    to: str
    position: Position


class Swap(msgspec.Struct, frozen=True, kw_only=True, rename={"from_": "from"}):
    """The latest swap of an endpoint."""

    id: str
    from_: str
    to: str
    state: Literal["requested", "completed", "failed"]
    requested_at: datetime
    deadline: datetime
    duration_ms: float | None = None
    """From request to completion or failure; None while requested."""
    reason: str | None = None
    detail: str | None = None
    position: Position
    """Of the event that brought it into this state."""


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that was raised and not cleared."""

    id: str
    kind: str
    severity: Severity
    version: str | None
    detail: str
    raised_at: datetime
    position: Position


class RolloutSummary(msgspec.Struct, frozen=True, kw_only=True):
    """The rollout that an endpoint is in."""

    id: str
    baseline: str
    candidate: str
    state: Literal["running", "held"]
    step: int
    """Index into `steps`, from 0."""
    weight: float
    """The candidate's share of the traffic in force, in per cent."""
    hold_until: datetime | None
    """When the step's hold is over; None while held."""
    steps: tuple[Step, ...]


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout of an endpoint, under way or ended."""

    id: str
    endpoint: str
    baseline: str
    candidate: str
    state: Literal["running", "held", "completed", "aborted"]
    step: int
    """Index into `steps`, from 0; of an ended rollout, the last one in force."""
    weight: float
    """The candidate's share of the traffic in force, in per cent; 100 when completed, 0 when
    aborted."""
    steps: list[Step]
    analysis: Analysis
    hold_until: datetime | None
    """When the step's hold is over; None while held, and after the end."""
    held_reason: Literal["inconclusive", "paused"] | None
    """None unless held."""
    reason: str | None
    """Why it ended, as its last event says; None before."""
    detail: str | None
    verdicts: list[Verdict]
    """Those of the last event that carried some."""
    started_at: datetime
    ended_at: datetime | None
    updated_at: datetime
    position: Position


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    model: str
    policy: Policy
    active: str
    """The version that last carried all traffic and was not rolled back from."""
    previous: str | None
    """The one that carried all traffic before `active`; None after a rollback."""
    rollout: RolloutSummary | None = None
    """The one that is under way."""
    swap: Swap | None
    alerts: list[Alert]
    created_at: datetime
    updated_at: datetime
    position: Position


class Resident(msgspec.Struct, frozen=True, kw_only=True):
    """What a node holds; a tenant sees its own versions only."""

    tenant: str
    model: str
    version: str
    memory_bytes: int


class Node(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    state: Literal["joined", "draining", "lost", "left"]
    runtimes: list[str]
    memory_budget_bytes: int
    memory_used_bytes: int
    """Of all tenants together."""
    resident: list[Resident]
    updated_at: datetime
    position: Position


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    name: str
    quota: Quota
    created_at: datetime
    position: Position


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """An API key as administrators see it: no secret."""

    id: str
    scopes: list[Scope]
    issued_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    tokens_per_minute: int | None
    """Its budget; None is unbounded."""
    position: Position

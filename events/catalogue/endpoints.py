"""Endpoints: stable names, and how their traffic is split. Entity `<tenant>/endpoint/<name>`.

Every event that changes the split carries the whole policy that holds after it, so a reader needs
no earlier event to route.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal, TypeAlias

import msgspec

from events.event import Event

Severity: TypeAlias = Literal["warning", "critical"]
Day: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class When(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The condition of a rule: all given members must hold."""

    days: tuple[Day, ...] | None = None
    """Local days on which the window *starts*."""
    from_: str | None = msgspec.field(name="from", default=None)
    """Local time `HH:MM`, inclusive."""
    to: str | None = None
    """Local time `HH:MM`, exclusive; before `from`, the window crosses midnight."""
    timezone: str | None = None
    """IANA name; UTC when absent."""
    attributes: dict[str, str] | None = None
    """Request attributes that must all be equal."""


class Rule(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A split of its own for the requests that match."""

    name: str
    when: When
    split: dict[str, float]


class Shadow(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A version that is sent copies and whose answers are never returned."""

    version: str
    fraction: float = 1.0
    """Of the requests, 0 to 1."""


class Policy(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """How traffic is split: the first rule that matches wins, else `split`."""

    split: dict[str, float]
    """Version -> weight; non-negative, normalised, not all zero."""
    sticky: bool = True
    """The same key gets the same version while the policy stands."""
    shadow: tuple[Shadow, ...] = ()
    rules: tuple[Rule, ...] = ()


class EndpointCreated(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.created.v1"
    model: str
    version: str
    policy: Policy


class PolicySet(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.policy_set.v1"
    policy: Policy


class SwapRequested(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Nodes load `to_version`; traffic stays where it is."""

    type: ClassVar[str] = "switchback.endpoint.swap_requested.v1"
    swap_id: str
    from_version: str
    to_version: str
    deadline: datetime
    """The swap fails if the version is not resident by then."""


class SwapCompleted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """All traffic goes to `to_version`; `from_version` stays resident as the rollback target."""

    type: ClassVar[str] = "switchback.endpoint.swap_completed.v1"
    swap_id: str
    from_version: str
    to_version: str
    policy: Policy


class SwapFailed(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.swap_failed.v1"
    swap_id: str
    from_version: str
    to_version: str
    reason: Literal["load_failed", "timeout", "rolled_back", "superseded"]
    detail: str = ""


class RolledBack(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.rolled_back.v1"
    from_versions: tuple[str, ...]
    """The versions that lost their traffic, or were about to get it."""
    to_version: str
    reason: str
    policy: Policy


class AlertRaised(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.alert_raised.v1"
    alert_id: str
    kind: str
    severity: Severity
    version: str | None = None
    """The newest version taking traffic when the alert was raised."""
    detail: str = ""


class AlertCleared(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.alert_cleared.v1"
    alert_id: str
    reason: str = ""


EVENTS: tuple[type[Event], ...] = (
    EndpointCreated,
    PolicySet,
    SwapRequested,
    SwapCompleted,
    SwapFailed,
    RolledBack,
    AlertRaised,
    AlertCleared,
)

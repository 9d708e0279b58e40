"""The words of the endpoint stories: commands with their facts, and the events they lead to."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from engine.decisions.endpoint import (
    CompleteSwap,
    CreateEndpoint,
    RaiseAlert,
    RequestSwap,
    SetPolicy,
)
from events.catalogue.endpoints import (
    AlertRaised,
    EndpointCreated,
    Policy,
    PolicySet,
    RolledBack,
    SwapCompleted,
    SwapFailed,
    SwapRequested,
)

V1: Final = "1.0.0"
V2: Final = "2.0.0"
V3: Final = "3.0.0"
ALL: Final = frozenset({V1, V2, V3})
DEADLINE: Final = datetime(2030, 1, 1, tzinfo=UTC)


def split(**members: Any) -> Policy:
    """A policy from its JSON form."""
    return msgspec.convert(members, Policy)


def full(version: str) -> Policy:
    return Policy(split={version: 100.0})


def canary(old: str, new: str) -> Policy:
    return Policy(split={old: 90.0, new: 10.0})


def create(version: str = V1, **facts: Any) -> CreateEndpoint:
    return CreateEndpoint(
        model="fraud", version=version, **{"registered": ALL, "resident": ALL, **facts}
    )


def set_policy(policy: Policy, **facts: Any) -> SetPolicy:
    return SetPolicy(policy=policy, **{"registered": ALL, "resident": ALL, **facts})


def request(to: str, swap_id: str = "s1", **facts: Any) -> RequestSwap:
    return RequestSwap(swap_id=swap_id, to=to, deadline=DEADLINE, **{"registered": ALL, **facts})


def complete(swap_id: str = "s1", resident: frozenset[str] = ALL) -> CompleteSwap:
    return CompleteSwap(swap_id=swap_id, resident=resident)


def alarm(alert_id: str = "a1", kind: str = "error_rate", version: str | None = None) -> RaiseAlert:
    return RaiseAlert(
        alert_id=alert_id, kind=kind, severity="critical", version=version, detail="12 % failed"
    )


def warn(alert_id: str = "a1", kind: str = "error_rate", version: str | None = None) -> RaiseAlert:
    return RaiseAlert(
        alert_id=alert_id, kind=kind, severity="warning", version=version, detail="2 % failed"
    )


def created(version: str = V1) -> EndpointCreated:
    return EndpointCreated(model="fraud", version=version, policy=full(version))


def policy_set(policy: Policy) -> PolicySet:
    return PolicySet(policy=policy)


def requested(old: str, new: str, swap_id: str = "s1") -> SwapRequested:
    return SwapRequested(swap_id=swap_id, from_version=old, to_version=new, deadline=DEADLINE)


def completed(old: str, new: str, swap_id: str = "s1") -> SwapCompleted:
    return SwapCompleted(swap_id=swap_id, from_version=old, to_version=new, policy=full(new))


def swapped(old: str, new: str, swap_id: str = "s1") -> tuple[SwapRequested, SwapCompleted]:
    return requested(old, new, swap_id), completed(old, new, swap_id)


def failed(old: str, new: str, reason: Any, detail: str = "", swap_id: str = "s1") -> SwapFailed:
    return SwapFailed(
        swap_id=swap_id, from_version=old, to_version=new, reason=reason, detail=detail
    )


def rolled_back(to: str, *losers: str, reason: str = "") -> RolledBack:
    return RolledBack(from_versions=losers, to_version=to, reason=reason, policy=full(to))


def alarmed(version: str, alert_id: str = "a1", kind: str = "error_rate") -> AlertRaised:
    return AlertRaised(
        alert_id=alert_id, kind=kind, severity="critical", version=version, detail="12 % failed"
    )


def warned(version: str, alert_id: str = "a1", kind: str = "error_rate") -> AlertRaised:
    return AlertRaised(
        alert_id=alert_id, kind=kind, severity="warning", version=version, detail="2 % failed"
    )

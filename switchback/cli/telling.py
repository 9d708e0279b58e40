"""Events in words, a line each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from events.catalogue import BY_TYPE
from events.catalogue.endpoints import (
    AlertCleared,
    AlertRaised,
    EndpointCreated,
    Policy,
    PolicySet,
    RolledBack,
    RolloutAborted,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutHeld,
    RolloutResumed,
    RolloutStarted,
    SwapCompleted,
    SwapFailed,
    SwapRequested,
)


def told(type_: str, data: Mapping[str, Any]) -> str:
    """What an event says. Other events than an endpoint's are told by their type and data."""
    known = BY_TYPE.get(type_)
    event = msgspec.convert(data, known) if known is not None else None
    match event:
        case EndpointCreated():
            return f"created for {event.model}, all traffic to {event.version}"
        case PolicySet():
            return f"policy set: {_policy(event.policy)}"
        case SwapRequested():
            return f"swap from {event.from_version} to {event.to_version} requested"
        case SwapCompleted():
            return f"swapped from {event.from_version} to {event.to_version}"
        case SwapFailed():
            return f"swap to {event.to_version} failed: {_because(event.reason, event.detail)}"
        case RolledBack():
            lost = ", ".join(event.from_versions)
            return f"rolled back from {lost} to {_because(event.to_version, event.reason)}"
        case RolloutStarted():
            first = f"step 1 of {len(event.steps)} at {event.steps[0].weight:g} %"
            return f"rollout from {event.baseline} to {event.candidate} started, {first}"
        case RolloutAdvanced():
            return f"rollout at step {event.step + 1} ({event.reason}): {_policy(event.policy)}"
        case RolloutHeld():
            return f"rollout held at step {event.step + 1} ({event.reason})"
        case RolloutResumed():
            return f"rollout resumed at step {event.step + 1}"
        case RolloutCompleted():
            return f"rollout to {_because(event.candidate, event.reason)} completed"
        case RolloutAborted():
            why = f"{event.reason}: {event.detail}" if event.detail else event.reason
            return f"rollout to {event.candidate} aborted at step {event.step + 1} ({why})"
        case AlertRaised():
            return f"{event.severity} alert {_because(event.kind, event.detail)}"
        case AlertCleared():
            return f"alert {_because(event.alert_id, event.reason)} cleared"
        case _:
            return f"{type_.removeprefix('switchback.')} {msgspec.json.encode(data).decode()}"


def _because(what: str, why: str) -> str:
    return f"{what} ({why})" if why else what


def _policy(policy: Policy) -> str:
    shares = [f"{version} {weight:g}" for version, weight in policy.split.items()]
    rules = [f"rule {rule.name}" for rule in policy.rules]
    shadows = [f"shadow {shadow.version}" for shadow in policy.shadow]
    fallbacks = [f"fallback {version}" for version in policy.fallback]
    return ", ".join([*shares, *rules, *shadows, *fallbacks])

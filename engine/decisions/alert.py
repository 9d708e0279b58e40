"""Alerts about an endpoint's versions. Part of `engine.decisions.endpoint`.

A critical alert about the version on trial (the candidate of a rollout, else the newest version
that takes traffic) rolls back in the same append. About any other version it is recorded and moves
nothing: a stable version that is broken neither aborts a rollout nor stands in its way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec

from engine.decisions.decider import Invalid
from engine.decisions.endpoint_state import Alert, Endpoint, evolve
from engine.decisions.registration import is_semver
from engine.decisions.under_way import TEXT_CHARS_MAX, rolled_back, rollout_aborted, swap_failed
from events import Event
from events.catalogue.endpoints import AlertCleared, AlertRaised, Severity

KIND_CHARS_MAX: Final = 64
OPEN_ALERTS_MAX: Final = 64
"""When one more is raised, the oldest is cleared: a critical alert is never turned away."""

# ---------------------------------------------------------------------------------------- Commands


class RaiseAlert(msgspec.Struct, frozen=True, kw_only=True):
    """Something is wrong with a version. Raises UnknownEndpoint, InvalidAlert."""

    alert_id: str
    kind: str
    severity: Severity
    version: str | None = None
    """None: the newest of the versions that take traffic."""
    detail: str = ""


class ClearAlert(msgspec.Struct, frozen=True, kw_only=True):
    """Raises UnknownEndpoint. An alert that is not open yields no events."""

    alert_id: str
    reason: str = ""


Command: TypeAlias = RaiseAlert | ClearAlert


class InvalidAlert(Invalid):
    """A kind that is empty, too long or not printable; a version that cannot be one."""


# ------------------------------------------------------------------------------------------ decide


def decide(state: Endpoint, command: Command) -> Sequence[Event]:
    """The events of the command, or a refusal."""
    match command:
        case RaiseAlert():
            return _raise(state, command)
        case ClearAlert():
            return _clear(state, command)


def open_alert(state: Endpoint, command: RaiseAlert) -> Alert | None:
    """The open alert that says what the command says: the one of its id, else one of its kind,
    about its version and at least as severe. After the command there always is one."""
    version = _version(state, command)
    severities = ("critical", command.severity)
    for alert in state.alerts:
        if alert.alert_id == command.alert_id:
            return alert
    for alert in state.alerts:
        if (alert.kind, alert.version) == (command.kind, version) and alert.severity in severities:
            return alert
    return None


def _raise(state: Endpoint, command: RaiseAlert) -> Sequence[Event]:
    _check(command)
    known = open_alert(state, command)
    if known is not None and known.alert_id == command.alert_id:
        return ()
    raised = _raised(state, command)
    told = (*_displaced(state), raised)
    moved = _rollback(_after(state, told), raised) if command.severity == "critical" else ()
    if known is not None and not moved:
        return ()
    return (*told, *moved)


def _clear(state: Endpoint, command: ClearAlert) -> Sequence[Event]:
    if all(alert.alert_id != command.alert_id for alert in state.alerts):
        return ()
    return (AlertCleared(alert_id=command.alert_id, reason=command.reason[:TEXT_CHARS_MAX]),)


def _check(command: RaiseAlert) -> None:
    if not 1 <= len(command.kind) <= KIND_CHARS_MAX or not command.kind.isprintable():
        raise InvalidAlert({"kind": f"must be 1 to {KIND_CHARS_MAX} printable characters"})
    if command.version is not None and not is_semver(command.version):
        raise InvalidAlert({"version": "must be a semantic version"})


def _version(state: Endpoint, command: RaiseAlert) -> str:
    return state.newest if command.version is None else command.version


def _raised(state: Endpoint, command: RaiseAlert) -> AlertRaised:
    return AlertRaised(
        alert_id=command.alert_id,
        kind=command.kind,
        severity=command.severity,
        version=_version(state, command),
        detail=command.detail[:TEXT_CHARS_MAX],
    )


def _displaced(state: Endpoint) -> Sequence[Event]:
    if len(state.alerts) < OPEN_ALERTS_MAX:
        return ()
    return (AlertCleared(alert_id=state.alerts[0].alert_id, reason="displaced by newer alerts"),)


def _after(state: Endpoint, events: Sequence[Event]) -> Endpoint:
    for event in events:
        evolved = evolve(state, event)
        assert evolved is not None, "an event leaves an endpoint that exists"
        state = evolved
    return state


def _rollback(alarmed: Endpoint, raised: AlertRaised) -> Sequence[Event]:
    """What the critical alert asks for; nothing if its version is not on trial, or is the target
    itself."""
    if raised.version != alarmed.on_trial or alarmed.rollback_target == alarmed.on_trial:
        return ()
    reason = f"critical alert: {raised.kind}"
    return (
        *swap_failed(alarmed, "rolled_back", reason),
        *rollout_aborted(alarmed, "alert", reason),
        *rolled_back(alarmed, reason),
    )

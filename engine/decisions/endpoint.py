"""Endpoints: stable names, and how their traffic is split. Entity `<tenant>/endpoint/<name>`.

Guarantees: a version takes traffic only if it was registered and resident when that was decided; a
rollback is never told no while anything but the last good version takes traffic or is about to, and
leaves all traffic on that version and no swap pending; pressing it again changes nothing. Does not
guarantee that a version stays resident: nodes do, for `pinned_versions`.

*The last good version* is the last one that carried all traffic and has no critical alert open:
`active` while others share its traffic or a swap is pending, else the one before it. A version that
was rolled back from is never one, until a swap or a policy gives it all traffic again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from engine.decisions import policy as policies
from engine.decisions.decider import Conflict, Decider, ForeignEvent, Invalid, NotFound
from events import Event
from events.catalogue.endpoints import (
    AlertCleared,
    AlertRaised,
    EndpointCreated,
    Policy,
    PolicySet,
    RolledBack,
    Severity,
    SwapCompleted,
    SwapFailed,
    SwapRequested,
)

TEXT_CHARS_MAX: Final = 2_000
"""Reasons and details are cut here: a long story must not stop a rollback."""
KIND_CHARS_MAX: Final = 64
OPEN_ALERTS_MAX: Final = 64
"""When one more is raised, the oldest is cleared: a critical alert is never turned away."""

# ---------------------------------------------------------------------------------------- Commands


class CreateEndpoint(msgspec.Struct, frozen=True, kw_only=True):
    """All traffic to one version. Raises EndpointExists, UnknownVersions, VersionNotResident."""

    model: str
    version: str
    registered: frozenset[str]
    """Fact: the model's versions that are registered and not retired."""
    resident: frozenset[str]
    """Fact: the model's versions that some node can serve now."""


class SetPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """Split the traffic; a pending swap is superseded.

    Raises UnknownEndpoint, InvalidPolicy, UnknownVersions, VersionNotResident.
    """

    policy: Policy
    registered: frozenset[str]
    resident: frozenset[str]


class RequestSwap(msgspec.Struct, frozen=True, kw_only=True):
    """Load a version, then move all traffic to it.

    Raises UnknownEndpoint, UnknownVersions, SwapUnderWay.
    """

    swap_id: str
    to: str
    deadline: datetime
    registered: frozenset[str]


class CompleteSwap(msgspec.Struct, frozen=True, kw_only=True):
    """The version is resident: move. A swap that has ended already stays as it ended.

    Raises UnknownEndpoint, VersionNotResident.
    """

    swap_id: str
    resident: frozenset[str]


class FailSwap(msgspec.Struct, frozen=True, kw_only=True):
    """Give up; traffic stays where it is. Raises UnknownEndpoint."""

    swap_id: str
    reason: Literal["load_failed", "timeout"]
    detail: str = ""


class RollBack(msgspec.Struct, frozen=True, kw_only=True):
    """All traffic to the last good version. Raises UnknownEndpoint, NothingToRollBack."""

    reason: str = ""


class RaiseAlert(msgspec.Struct, frozen=True, kw_only=True):
    """Something is wrong with the newest version. A critical alert also rolls back, if it can.

    Raises UnknownEndpoint, InvalidAlert.
    """

    alert_id: str
    kind: str
    severity: Severity
    detail: str = ""


class ClearAlert(msgspec.Struct, frozen=True, kw_only=True):
    """Raises UnknownEndpoint. An alert that is not open yields no events."""

    alert_id: str
    reason: str = ""


Command: TypeAlias = (
    CreateEndpoint
    | SetPolicy
    | RequestSwap
    | CompleteSwap
    | FailSwap
    | RollBack
    | RaiseAlert
    | ClearAlert
)


class InvalidPolicy(Invalid):
    """A policy without a meaning, see `engine.decisions.policy`."""


class InvalidAlert(Invalid):
    """A kind that is empty, too long or not printable."""


class UnknownVersions(Invalid):
    """Versions are named that are not registered, or retired."""

    def __init__(self, versions: Mapping[str, str]) -> None:
        """`versions`: path of the field -> the version it names."""
        super().__init__(dict.fromkeys(versions, "is not a registered version, or is retired"))
        self.versions = frozenset(versions.values())


class UnknownEndpoint(NotFound):
    """Every command but CreateEndpoint needs an endpoint."""

    def __init__(self) -> None:
        super().__init__("there is no such endpoint")


class EndpointExists(Conflict):
    """The name is taken by an endpoint that was created otherwise; swap it instead."""

    def __init__(self, model: str, version: str) -> None:
        super().__init__(f"the endpoint exists, created for {model}@{version}")
        self.model = model
        self.version = version


class VersionNotResident(Conflict):
    """No node can serve these versions now."""

    def __init__(self, versions: frozenset[str]) -> None:
        super().__init__(f"not resident on any node: {', '.join(sorted(versions))}")
        self.versions = versions


class SwapUnderWay(Conflict):
    """Another swap is pending: wait for it, or roll it back."""

    def __init__(self, swap_id: str, to: str) -> None:
        super().__init__(f"swap {swap_id} to {to} is under way")
        self.swap_id = swap_id
        self.to = to


class NothingToRollBack(Conflict):
    """Only one version ever carried traffic."""

    def __init__(self, active: str) -> None:
        super().__init__(f"no other version than {active} has carried all traffic")
        self.active = active


# ------------------------------------------------------------------------------------------- State


class Swap(msgspec.Struct, frozen=True, kw_only=True):
    """A swap that is pending."""

    swap_id: str
    from_version: str
    to_version: str
    deadline: datetime


class Alert(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that is open."""

    alert_id: str
    kind: str
    severity: Severity
    version: str | None


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint that exists. Its size is bounded, however long its history."""

    model: str
    created_with: str
    """The version of CreateEndpoint."""
    policy: Policy
    active: str
    """The version that last carried all traffic and was not rolled back from."""
    previous: str | None = None
    """The one that carried all traffic before `active`; None after a rollback."""
    rolled_back: bool = False
    """The last move of all traffic was a rollback: `active` is where it ends."""
    arrivals: tuple[str, ...]
    """The versions that take traffic, in the order in which they began to."""
    swap: Swap | None = None
    alerts: tuple[Alert, ...] = ()
    """Open ones, oldest first."""

    @property
    def newest(self) -> str:
        """Of the versions that take traffic, the one that began last."""
        return self.arrivals[-1]

    @property
    def routed_versions(self) -> frozenset[str]:
        """All that may take traffic or are sent copies."""
        return policies.routed(self.policy)

    @property
    def rollback_target(self) -> str | None:
        """Where a rollback would go now: the last good version. None: a rollback has no effect."""
        candidates = [*self._active_if_challenged, *filter(None, [self.previous])]
        good = [version for version in candidates if not self._is_alarming(version)]
        # All are alarming: the newest of them still beats keeping what the operator wants gone.
        return next(iter([*good, *candidates]), None)

    @property
    def pinned_versions(self) -> frozenset[str]:
        """What must stay resident: routed, a rollback's possible targets, a swap's target."""
        swapped_in = None if self.swap is None else self.swap.to_version
        others = filter(None, (self.active, self.previous, swapped_in))
        return self.routed_versions.union(others)

    @property
    def _active_if_challenged(self) -> list[str]:
        alone = self.swap is None and self.arrivals == (self.active,)
        return [] if alone else [self.active]

    def _is_alarming(self, version: str) -> bool:
        return any(a.version == version and a.severity == "critical" for a in self.alerts)


State: TypeAlias = Endpoint | None

# ------------------------------------------------------------------------------------------ evolve


def evolve(state: State, event: Event) -> State:
    """The endpoint after the event."""
    if isinstance(event, EndpointCreated):
        return Endpoint(
            model=event.model,
            created_with=event.version,
            policy=event.policy,
            active=event.version,
            arrivals=policies.takers(event.policy),
        )
    if state is None:
        raise ForeignEvent(event)
    match event:
        case PolicySet():
            return _route(state, event.policy)
        case SwapRequested():
            return replace(state, swap=_pending(event))
        case SwapCompleted():
            return replace(_route(state, event.policy), swap=None)
        case SwapFailed():
            return replace(state, swap=None)
        case RolledBack():
            return _roll_back(state, event)
        case AlertRaised():
            return replace(state, alerts=(*state.alerts, _alert(event)))
        case AlertCleared():
            kept = tuple(alert for alert in state.alerts if alert.alert_id != event.alert_id)
            return replace(state, alerts=kept)
        case _:
            raise ForeignEvent(event)


def _route(state: Endpoint, policy: Policy) -> Endpoint:
    routed = replace(state, policy=policy, arrivals=_arrivals(state, policy))
    sole = policies.sole(policy)
    if sole is None or sole == state.active:
        return routed
    return replace(routed, active=sole, previous=state.active, rolled_back=False)


def _roll_back(state: Endpoint, event: RolledBack) -> Endpoint:
    return replace(
        state,
        policy=event.policy,
        arrivals=_arrivals(state, event.policy),
        active=event.to_version,
        previous=None,
        rolled_back=True,
    )


def _arrivals(state: Endpoint, policy: Policy) -> tuple[str, ...]:
    takers = policies.takers(policy)
    stayed = tuple(version for version in state.arrivals if version in takers)
    return stayed + tuple(version for version in takers if version not in stayed)


def _pending(event: SwapRequested) -> Swap:
    return Swap(
        swap_id=event.swap_id,
        from_version=event.from_version,
        to_version=event.to_version,
        deadline=event.deadline,
    )


def _alert(event: AlertRaised) -> Alert:
    return Alert(
        alert_id=event.alert_id, kind=event.kind, severity=event.severity, version=event.version
    )


# ------------------------------------------------------------------------------------------ decide


def decide(state: State, command: Command) -> Sequence[Event]:
    """The events of the command, or a refusal."""
    if isinstance(command, CreateEndpoint):
        return _create(state, command)
    if state is None:
        raise UnknownEndpoint
    match command:
        case SetPolicy():
            return _set_policy(state, command)
        case RequestSwap():
            return _request_swap(state, command)
        case CompleteSwap():
            return _complete_swap(state, command)
        case FailSwap():
            return _fail_swap(state, command)
        case RollBack():
            return _decide_roll_back(state, command)
        case RaiseAlert():
            return _raise_alert(state, command)
        case ClearAlert():
            return _clear_alert(state, command)


def _create(state: State, command: CreateEndpoint) -> Sequence[Event]:
    if state is not None:
        if (state.model, state.created_with) == (command.model, command.version):
            return ()
        raise EndpointExists(state.model, state.created_with)
    _check_registered({"version": command.version}, command.registered)
    _check_resident({command.version}, command.resident)
    policy = Policy(split={command.version: 100.0})
    return (EndpointCreated(model=command.model, version=command.version, policy=policy),)


def _set_policy(state: Endpoint, command: SetPolicy) -> Sequence[Event]:
    if command.policy == state.policy:
        return ()
    if found := policies.problems(command.policy):
        raise InvalidPolicy(found)
    _check_registered(dict(policies.mentions(command.policy)), command.registered)
    _check_resident(policies.routed(command.policy), command.resident)
    superseded = _swap_failed(state, "superseded", "a policy was set")
    return (*superseded, PolicySet(policy=command.policy))


def _request_swap(state: Endpoint, command: RequestSwap) -> Sequence[Event]:
    if state.swap is not None:
        if state.swap.to_version == command.to:
            return ()
        raise SwapUnderWay(state.swap.swap_id, state.swap.to_version)
    if policies.sole(state.policy) == command.to:
        return ()
    _check_registered({"to": command.to}, command.registered)
    return (
        SwapRequested(
            swap_id=command.swap_id,
            from_version=state.active,
            to_version=command.to,
            deadline=command.deadline,
        ),
    )


def _complete_swap(state: Endpoint, command: CompleteSwap) -> Sequence[Event]:
    swap = state.swap
    if swap is None or swap.swap_id != command.swap_id:
        return ()
    _check_resident({swap.to_version}, command.resident)
    return (
        SwapCompleted(
            swap_id=swap.swap_id,
            from_version=swap.from_version,
            to_version=swap.to_version,
            policy=policies.all_to(swap.to_version, like=state.policy),
        ),
    )


def _fail_swap(state: Endpoint, command: FailSwap) -> Sequence[Event]:
    if state.swap is None or state.swap.swap_id != command.swap_id:
        return ()
    return _swap_failed(state, command.reason, command.detail)


def _decide_roll_back(state: Endpoint, command: RollBack) -> Sequence[Event]:
    if state.rollback_target is None and not state.rolled_back:
        raise NothingToRollBack(state.active)
    return _rolled_back(state, command.reason)


def _raise_alert(state: Endpoint, command: RaiseAlert) -> Sequence[Event]:
    if not 1 <= len(command.kind) <= KIND_CHARS_MAX or not command.kind.isprintable():
        raise InvalidAlert({"kind": f"must be 1 to {KIND_CHARS_MAX} printable characters"})
    if any(alert.alert_id == command.alert_id for alert in state.alerts):
        return ()
    raised = _alert_raised(state, command)
    moved = _moved_by_alert(state, raised) if command.severity == "critical" else ()
    if not moved and _is_known(state, command):
        return ()
    return (*_displaced(state), raised, *moved)


def _clear_alert(state: Endpoint, command: ClearAlert) -> Sequence[Event]:
    if all(alert.alert_id != command.alert_id for alert in state.alerts):
        return ()
    return (AlertCleared(alert_id=command.alert_id, reason=command.reason[:TEXT_CHARS_MAX]),)


def _check_registered(versions: Mapping[str, str], registered: frozenset[str]) -> None:
    """`versions`: path of the field -> the version it names."""
    if unknown := {path: v for path, v in versions.items() if v not in registered}:
        raise UnknownVersions(unknown)


def _check_resident(versions: Set[str], resident: frozenset[str]) -> None:
    if absent := frozenset(versions - resident):
        raise VersionNotResident(absent)


def _swap_failed(
    state: Endpoint,
    reason: Literal["load_failed", "timeout", "rolled_back", "superseded"],
    detail: str,
) -> Sequence[Event]:
    """The end of the pending swap, if there is one."""
    if state.swap is None:
        return ()
    return (
        SwapFailed(
            swap_id=state.swap.swap_id,
            from_version=state.swap.from_version,
            to_version=state.swap.to_version,
            reason=reason,
            detail=detail[:TEXT_CHARS_MAX],
        ),
    )


def _rolled_back(state: Endpoint, reason: str) -> Sequence[Event]:
    """The rollback, if it would have an effect."""
    target = state.rollback_target
    if target is None:
        return ()
    swapped_in = () if state.swap is None else (state.swap.to_version,)
    losers = tuple(dict.fromkeys(v for v in (*state.arrivals, *swapped_in) if v != target))
    return (
        *_swap_failed(state, "rolled_back", reason),
        RolledBack(
            from_versions=losers,
            to_version=target,
            reason=reason[:TEXT_CHARS_MAX],
            policy=policies.all_to(target, like=state.policy),
        ),
    )


def _alert_raised(state: Endpoint, command: RaiseAlert) -> AlertRaised:
    return AlertRaised(
        alert_id=command.alert_id,
        kind=command.kind,
        severity=command.severity,
        version=state.newest,
        detail=command.detail[:TEXT_CHARS_MAX],
    )


def _moved_by_alert(state: Endpoint, raised: AlertRaised) -> Sequence[Event]:
    """The rollback that a critical alert asks for; none if the newest version is the target."""
    alarmed = replace(state, alerts=(*state.alerts, _alert(raised)))
    if alarmed.rollback_target == state.newest:
        return ()
    return _rolled_back(alarmed, f"critical alert: {raised.kind}")


def _is_known(state: Endpoint, command: RaiseAlert) -> bool:
    """Is the newest version under an alert of this kind that is at least as severe?"""
    return any(
        alert.kind == command.kind
        and alert.version == state.newest
        and alert.severity in ("critical", command.severity)
        for alert in state.alerts
    )


def _displaced(state: Endpoint) -> Sequence[Event]:
    if len(state.alerts) < OPEN_ALERTS_MAX:
        return ()
    return (AlertCleared(alert_id=state.alerts[0].alert_id, reason="displaced by newer alerts"),)


# ----------------------------------------------------------------------------------------- Decider

DECIDER: Final[Decider[Command, State]] = Decider(initial=None, evolve=evolve, decide=decide)

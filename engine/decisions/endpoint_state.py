"""What an endpoint is after its events: the sections *State* and *evolve* of
`engine.decisions.endpoint`.

*The last good version* is the last one that carried all traffic and has no critical alert open:
`active` while others share its traffic or a swap or a rollout is under way, else the one before it.
A version that was rolled back from is never one, until a swap, a rollout or a policy gives it all
traffic again; the candidate of a rollout is none before the rollout is completed.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from engine.decisions import policy as policies
from engine.decisions.decider import ForeignEvent
from events import Event
from events.catalogue.endpoints import (
    AlertCleared,
    AlertRaised,
    Analysis,
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
    Severity,
    Step,
    SwapCompleted,
    SwapFailed,
    SwapRequested,
)

ENDED_ROLLOUTS_MAX: Final = 16
"""Rollouts that are over and still known by their id; of older ones the log tells."""

# ------------------------------------------------------------------------------------------- State


class Swap(msgspec.Struct, frozen=True, kw_only=True):
    """A swap that is pending."""

    swap_id: str
    from_version: str
    to_version: str
    deadline: datetime


class Rollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that is live: running, or held in its step."""

    rollout_id: str
    baseline: str
    candidate: str
    steps: tuple[Step, ...]
    analysis: Analysis
    step: int
    """Index of the step in force, from 0."""
    held: Literal["inconclusive", "paused"] | None = None
    """None: running."""
    hold_until: datetime
    """The step does not pass before; while paused, it was so before the pause."""
    hold_left_s: float = 0.0
    """While paused: what was left of the step's hold."""

    @property
    def weight(self) -> float:
        """The candidate's share in per cent, 0 to 100."""
        return self.steps[self.step].weight

    @property
    def is_at_last_step(self) -> bool:
        """Does the rollout complete when this step has passed?"""
        return self.step == len(self.steps) - 1


class EndedRollout(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that is over."""

    rollout_id: str
    outcome: Literal["completed", "aborted"]


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
    """The version that last carried all traffic and was not rolled back from. During a rollout the
    baseline, also in a step of weight 100."""
    previous: str | None = None
    """The one that carried all traffic before `active`; None after a rollback."""
    rolled_back: bool = False
    """The last move of all traffic was a rollback: `active` is where it ends."""
    arrivals: tuple[str, ...]
    """The versions that take traffic, in the order in which they began to."""
    swap: Swap | None = None
    rollout: Rollout | None = None
    """Never beside a swap."""
    ended_rollouts: tuple[EndedRollout, ...] = ()
    """The last few, oldest first."""
    alerts: tuple[Alert, ...] = ()
    """Open ones, oldest first."""

    @property
    def newest(self) -> str:
        """Of the versions that take traffic, the one that began last."""
        return self.arrivals[-1]

    @property
    def on_trial(self) -> str:
        """The version whose critical alert rolls back: the candidate, else the newest one."""
        return self.newest if self.rollout is None else self.rollout.candidate

    @property
    def routed_versions(self) -> frozenset[str]:
        """All that may take traffic, are sent copies, or are fallbacks."""
        return policies.routed(self.policy)

    @property
    def incoming(self) -> str | None:
        """The version that a swap or a rollout is to give all traffic to."""
        if self.rollout is not None:
            return self.rollout.candidate
        return None if self.swap is None else self.swap.to_version

    @property
    def rollback_target(self) -> str | None:
        """Where a rollback would go now: the last good version. None: a rollback has no effect."""
        candidates = self._carriers_before
        good = [version for version in candidates if not self._is_alarming(version)]
        # All are alarming: the newest of them still beats keeping what the operator wants gone.
        return next(iter([*good, *candidates]), None)

    @property
    def pinned_versions(self) -> frozenset[str]:
        """What must stay resident: routed, a rollback's possible targets, what is to come."""
        others = filter(None, (self.active, self.previous, self.incoming))
        return self.routed_versions.union(others)

    def ended_rollout(self, rollout_id: str) -> EndedRollout | None:
        """The rollout of that id, if it is over and not long ago."""
        return next((r for r in self.ended_rollouts if r.rollout_id == rollout_id), None)

    @property
    def _carriers_before(self) -> list[str]:
        """What carried all traffic before what takes it now or is to take it; newest first."""
        tried = None if self.rollout is None else self.rollout.candidate
        alone = self.incoming is None and self.arrivals == (self.active,)
        carriers = filter(None, [None if alone else self.active, self.previous])
        return [version for version in carriers if version != tried]

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
            return _moved(state, event.policy)
        case SwapRequested():
            return replace(state, swap=_pending(event))
        case SwapCompleted():
            return replace(_moved(state, event.policy), swap=None)
        case SwapFailed():
            return replace(state, swap=None)
        case RolloutStarted():
            return replace(_shared(state, event.policy), rollout=_begun(event))
        case RolledBack():
            return _rolled_back(state, event)
        case AlertRaised():
            return replace(state, alerts=(*state.alerts, _alert(event)))
        case AlertCleared():
            kept = tuple(alert for alert in state.alerts if alert.alert_id != event.alert_id)
            return replace(state, alerts=kept)
        case _:
            return _rollout_evolved(state, event)


def _rollout_evolved(state: Endpoint, event: Event) -> Endpoint:
    """After an event of the rollout that is live."""
    rollout = state.rollout
    if rollout is None:
        raise ForeignEvent(event)
    match event:
        case RolloutAdvanced():
            moved = _running(rollout, step=event.step, hold_until=event.hold_until)
            return replace(_shared(state, event.policy), rollout=moved)
        case RolloutHeld():
            held = replace(rollout, held=event.reason, hold_left_s=event.hold_left_s)
            return replace(state, rollout=held)
        case RolloutResumed():
            resumed = _running(rollout, step=event.step, hold_until=event.hold_until)
            return replace(state, rollout=resumed)
        case RolloutCompleted():
            return _ended(_moved(state, event.policy), rollout, "completed")
        case RolloutAborted():
            return _ended(state, rollout, "aborted")
        case _:
            raise ForeignEvent(event)


def _shared(state: Endpoint, policy: Policy) -> Endpoint:
    return replace(state, policy=policy, arrivals=_arrivals(state, policy))


def _moved(state: Endpoint, policy: Policy) -> Endpoint:
    """The policy is meant to stay: a version that takes all traffic by it is active."""
    shared = _shared(state, policy)
    sole = policies.sole(policy)
    if sole is None or sole == state.active:
        return shared
    return replace(shared, active=sole, previous=state.active, rolled_back=False)


def _rolled_back(state: Endpoint, event: RolledBack) -> Endpoint:
    return replace(
        _shared(state, event.policy), active=event.to_version, previous=None, rolled_back=True
    )


def _arrivals(state: Endpoint, policy: Policy) -> tuple[str, ...]:
    takers = policies.takers(policy)
    stayed = tuple(version for version in state.arrivals if version in takers)
    return stayed + tuple(version for version in takers if version not in stayed)


def _begun(event: RolloutStarted) -> Rollout:
    return Rollout(
        rollout_id=event.rollout_id,
        baseline=event.baseline,
        candidate=event.candidate,
        steps=event.steps,
        analysis=event.analysis,
        step=0,
        hold_until=event.hold_until,
    )


def _running(rollout: Rollout, *, step: int, hold_until: datetime) -> Rollout:
    return replace(rollout, step=step, held=None, hold_until=hold_until, hold_left_s=0.0)


def _ended(state: Endpoint, rollout: Rollout, outcome: Literal["completed", "aborted"]) -> Endpoint:
    ended = EndedRollout(rollout_id=rollout.rollout_id, outcome=outcome)
    kept = (*state.ended_rollouts, ended)[-ENDED_ROLLOUTS_MAX:]
    return replace(state, rollout=None, ended_rollouts=kept)


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

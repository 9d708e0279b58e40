"""Rollouts of an endpoint: a move of its traffic in steps, with a look before each.

Part of `engine.decisions.endpoint`: how a rollout starts, and what becomes of it by itself; what
operators do to it is in `engine.decisions.rollout_control`. Guarantees: weights only grow, and no
step is taken twice or left out, until the rollout is completed or aborted; the candidate's share
grows only while some node can serve it; the baseline needs no health and no node for anything.
Does not guarantee that a hold has passed or that a verdict is true: whoever advances a rollout
answers for it, with its verdicts.

A report about a step or a rollout that is over yields no events: whoever sends it may be late.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import msgspec

from engine.decisions import policy as policies
from engine.decisions.decider import Conflict, Invalid
from engine.decisions.endpoint_state import Endpoint, Rollout
from engine.decisions.facts import check_registered, check_resident
from engine.decisions.rollout_plan import DEFAULT_STEPS, problems
from engine.decisions.under_way import check_no_rollout, check_no_swap
from engine.decisions.verdicts import writable
from events import Event
from events.catalogue.endpoints import (
    Analysis,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutHeld,
    RolloutStarted,
    Step,
    Verdict,
)

# ---------------------------------------------------------------------------------------- Commands


class StartRollout(msgspec.Struct, frozen=True, kw_only=True):
    """Put the first step in force, against the version that takes all traffic. Rules end with it;
    shadows, fallbacks and stickiness stay. The same rollout again, while it is live, changes
    nothing; nor does the id of one that has ended.

    Raises UnknownEndpoint, RolloutUnderWay, SwapUnderWay, TrafficIsSplit, InvalidRollout,
    UnknownVersions, VersionNotResident.
    """

    rollout_id: str
    to: str
    steps: tuple[Step, ...] = ()
    """None at all: DEFAULT_STEPS."""
    analysis: Analysis = Analysis()
    now: datetime
    registered: frozenset[str]
    resident: frozenset[str]


class AdvanceRollout(msgspec.Struct, frozen=True, kw_only=True):
    """The step has passed: put the next in force, or complete. Not while it is paused.

    Raises UnknownEndpoint, VersionNotResident.
    """

    rollout_id: str
    step: int
    """The step that has passed."""
    reason: Literal["passed", "inconclusive"]
    verdicts: tuple[Verdict, ...] = ()
    now: datetime
    resident: frozenset[str]


class HoldRollout(msgspec.Struct, frozen=True, kw_only=True):
    """The step's hold is over and it is not known to be good. Raises UnknownEndpoint."""

    rollout_id: str
    step: int
    verdicts: tuple[Verdict, ...] = ()


Command: TypeAlias = StartRollout | AdvanceRollout | HoldRollout


class InvalidRollout(Invalid):
    """A plan that cannot be carried out, see `engine.decisions.rollout_plan`."""


class TrafficIsSplit(Conflict):
    """A rollout begins where one version takes all traffic, by every rule."""

    def __init__(self, versions: tuple[str, ...]) -> None:
        super().__init__(f"traffic is split between {', '.join(versions)}: give it to one of them")
        self.versions = versions


# ------------------------------------------------------------------------------------------ decide


def decide(state: Endpoint, command: Command) -> Sequence[Event]:
    """The events of the command, or a refusal."""
    match command:
        case StartRollout():
            return _start(state, command)
        case AdvanceRollout():
            return _advance(state, command)
        case HoldRollout():
            return _hold(state, command)


def _start(state: Endpoint, command: StartRollout) -> Sequence[Event]:
    if _has_begun(state, command):
        return ()
    check_no_rollout(state)
    check_no_swap(state)
    baseline = policies.sole(state.policy)
    if baseline is None:
        raise TrafficIsSplit(state.arrivals)
    _check_plan(state, command, baseline)
    check_registered({"to": command.to}, command.registered)
    check_resident({command.to}, command.resident)
    steps = _steps(command)
    return (
        RolloutStarted(
            rollout_id=command.rollout_id,
            baseline=baseline,
            candidate=command.to,
            steps=steps,
            analysis=command.analysis,
            hold_until=_hold_until(steps[0], command.now),
            policy=policies.shared(baseline, command.to, steps[0].weight, like=state.policy),
        ),
    )


def _advance(state: Endpoint, command: AdvanceRollout) -> Sequence[Event]:
    rollout = _reported(state, command.rollout_id, command.step)
    if rollout is None or rollout.held == "paused":
        return ()
    check_resident({rollout.candidate}, command.resident)
    if rollout.is_at_last_step:
        return (completed(state, rollout, command.reason, command.verdicts),)
    return (advanced(state, rollout, command.reason, command.now, command.verdicts),)


def _hold(state: Endpoint, command: HoldRollout) -> Sequence[Event]:
    rollout = _reported(state, command.rollout_id, command.step)
    if rollout is None or rollout.held is not None:
        return ()
    return (
        RolloutHeld(
            rollout_id=rollout.rollout_id,
            step=rollout.step,
            reason="inconclusive",
            verdicts=writable(command.verdicts),
        ),
    )


def _steps(command: StartRollout) -> tuple[Step, ...]:
    return command.steps or DEFAULT_STEPS


def _has_begun(state: Endpoint, command: StartRollout) -> bool:
    rollout = state.rollout
    if rollout is None:
        return state.ended_rollout(command.rollout_id) is not None
    live = (rollout.candidate, rollout.steps, rollout.analysis)
    return live == (command.to, _steps(command), command.analysis)


def _check_plan(state: Endpoint, command: StartRollout, baseline: str) -> None:
    found = problems(
        steps=_steps(command),
        analysis=command.analysis,
        to=command.to,
        baseline=baseline,
        policy=state.policy,
    )
    if found:
        raise InvalidRollout(found)


def _reported(state: Endpoint, rollout_id: str, step: int) -> Rollout | None:
    """The live rollout, if it is the one reported about, and in that step."""
    rollout = state.rollout
    if rollout is None or (rollout.rollout_id, rollout.step) != (rollout_id, step):
        return None
    return rollout


def _hold_until(step: Step, now: datetime) -> datetime:
    return now + timedelta(seconds=step.hold_s)


def advanced(
    state: Endpoint,
    rollout: Rollout,
    reason: Literal["passed", "inconclusive", "promoted"],
    now: datetime,
    verdicts: tuple[Verdict, ...] = (),
) -> RolloutAdvanced:
    """The step after the one in force, with its whole hold from `now`. There must be one."""
    to = rollout.steps[rollout.step + 1]
    return RolloutAdvanced(
        rollout_id=rollout.rollout_id,
        step=rollout.step + 1,
        reason=reason,
        hold_until=_hold_until(to, now),
        policy=policies.shared(rollout.baseline, rollout.candidate, to.weight, like=state.policy),
        verdicts=writable(verdicts),
    )


def completed(
    state: Endpoint,
    rollout: Rollout,
    reason: Literal["passed", "inconclusive", "promoted"],
    verdicts: tuple[Verdict, ...] = (),
) -> RolloutCompleted:
    """All traffic to the candidate."""
    return RolloutCompleted(
        rollout_id=rollout.rollout_id,
        baseline=rollout.baseline,
        candidate=rollout.candidate,
        reason=reason,
        policy=policies.all_to(rollout.candidate, like=state.policy),
        verdicts=writable(verdicts),
    )

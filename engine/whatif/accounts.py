"""Accounts of a rollout: of what was recorded, and the pieces that every account is made of."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from engine.whatif.course import Act, ActKind, Course, Served, State, e_values_of, outcomes_of
from engine.whatif.record import Move, RecordedRollout
from events.catalogue.endpoints import Step, Verdict
from events.catalogue.traffic import WindowObserved

DETECTED: Final = frozenset({"failed", "alert"})
"""Reasons of aborts that say that the candidate fails."""


def recorded_course(rollout: RecordedRollout) -> Course:
    """What the log says the rollout did."""
    weights = {phase.policy: phase for phase in rollout.phases if phase.step is not None}
    served = Served()
    for window in rollout.windows:
        if window.policy in weights:
            served = plus(served, window, rollout.candidate, estimated=False)
    acts = tuple(_act_of(rollout, move) for move in rollout.moves)
    end = rollout.end
    return course_of(
        rollout,
        state=_state(rollout.moves),
        acts=acts,
        served=served,
        unknown=None if end is not None else rollout.known_until,
    )


def course_of(
    rollout: RecordedRollout,
    *,
    state: State,
    acts: tuple[Act, ...],
    served: Served,
    unknown: datetime | None,
) -> Course:
    last = acts[-1] if acts and state in ("completed", "aborted") else None
    is_detected = last is not None and last.action == "aborted" and last.reason in DETECTED
    return Course(
        state=state,
        reason=last.reason if last is not None else "",
        acts=acts,
        ended_after_s=last.after_s if last is not None else None,
        detected_after_s=last.after_s if last is not None and is_detected else None,
        served=served,
        unknown_from_s=None if unknown is None else seconds_in(rollout, unknown),
    )


def act_of(
    rollout: RecordedRollout,
    steps: Sequence[Step],
    action: ActKind,
    *,
    time: datetime,
    step: int,
    reason: str,
    verdicts: tuple[Verdict, ...],
    estimated: bool,
) -> Act:
    weights = {"completed": 100.0, "aborted": 0.0}
    return Act(
        after_s=seconds_in(rollout, time),
        action=action,
        step=step,
        weight=weights.get(action, steps[step].weight),
        reason=reason,
        outcomes=outcomes_of(verdicts),
        e_values=e_values_of(verdicts),
        estimated=estimated,
    )


def plus(served: Served, window: WindowObserved, version: str, *, estimated: bool) -> Served:
    """With what the version served in one more window."""
    seen = window.versions.get(version)
    if seen is None:
        return served
    return Served(
        requests=served.requests + seen.requests,
        failed=served.failed + sum(seen.errors.values()),
        estimated=served.estimated + (seen.requests if estimated else 0),
    )


def seconds_in(rollout: RecordedRollout, time: datetime) -> float:
    """Since the rollout began, to the millisecond."""
    return round((time - rollout.started).total_seconds(), 3)


def _act_of(rollout: RecordedRollout, move: Move) -> Act:
    return act_of(
        rollout,
        rollout.steps,
        move.kind,
        time=move.time,
        step=move.step,
        reason=move.reason,
        verdicts=move.verdicts,
        estimated=False,
    )


def _state(moves: Sequence[Move]) -> State:
    match moves[-1].kind if moves else "advanced":
        case "completed":
            return "completed"
        case "aborted":
            return "aborted"
        case "held":
            return "held"
        case _:
            return "running"

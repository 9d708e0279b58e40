"""The words of the rollout stories: commands with their facts, and the events they lead to.

The rollout of these stories goes from V1 to V2 in four steps: 5, 25, 50 and 100 %.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, TypeAlias

from engine.decisions.decider import Refused
from engine.decisions.endpoint import (
    AbortRollout,
    AdvanceRollout,
    Command,
    HoldRollout,
    PauseRollout,
    PromoteRollout,
    ResumeRollout,
    StartRollout,
)
from events import Event
from events.catalogue.endpoints import (
    Analysis,
    Policy,
    RolloutAborted,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutHeld,
    RolloutResumed,
    RolloutStarted,
    Step,
    Verdict,
)
from switchback.testing import History
from tests.decisions.endpoints import ALL, V1, V2, full, rolled_back

Reason: TypeAlias = Literal["passed", "inconclusive", "promoted"]

NOW: Final = datetime(2029, 6, 1, 12, tzinfo=UTC)
HOLD_S: Final = 60.0
STEPS: Final = tuple(
    Step(weight=weight, hold_s=HOLD_S, min_samples=100) for weight in (5, 25, 50, 100)
)
LAST: Final = len(STEPS) - 1
PASS: Final = Verdict(
    metric="error_rate",
    outcome="pass",
    baseline_samples=9_500,
    candidate_samples=500,
    estimate=0.001,
    interval=(-0.01, 0.012),
    e_value=0.8,
    alpha=0.05,
    threshold=20.0,
)
FAIL: Final = Verdict(
    metric="error_rate",
    outcome="fail",
    baseline_samples=950,
    candidate_samples=50,
    estimate=0.4,
    interval=(0.2, 0.6),
    e_value=400.0,
    alpha=0.05,
    threshold=20.0,
)


def at(seconds: float) -> datetime:
    """Seconds after the start of the rollout."""
    return NOW + timedelta(seconds=seconds)


def shared(weight: float, old: str = V1, new: str = V2) -> Policy:
    return Policy(split={old: 100.0 - weight, new: weight})


def after(history: History, command: Command) -> History:
    """The history with what the command led to. It must not be refused."""
    outcome = history.when(command)
    if isinstance(outcome.decided, Refused):
        raise outcome.decided
    return outcome.then(outcome.decided)


# ---------------------------------------------------------------------------------------- Commands


def start(to: str = V2, rollout_id: str = "r1", **members: Any) -> StartRollout:
    given = {"steps": STEPS, "now": NOW, "registered": ALL, "resident": ALL, **members}
    return StartRollout(rollout_id=rollout_id, to=to, **given)


def advance(step: int, **members: Any) -> AdvanceRollout:
    given = {"reason": "passed", "now": NOW, "resident": ALL, **members}
    return AdvanceRollout(rollout_id="r1", step=step, **given)


def hold(step: int, *verdicts: Verdict) -> HoldRollout:
    return HoldRollout(rollout_id="r1", step=step, verdicts=verdicts)


def pause(now: datetime = NOW, rollout_id: str = "r1") -> PauseRollout:
    return PauseRollout(rollout_id=rollout_id, now=now)


def resume(now: datetime = NOW, rollout_id: str = "r1") -> ResumeRollout:
    return ResumeRollout(rollout_id=rollout_id, now=now)


def promote(from_step: int | None = None, **members: Any) -> PromoteRollout:
    given = {"rollout_id": "r1", "to": "next", "now": NOW, "resident": ALL, **members}
    return PromoteRollout(from_step=from_step, **given)


def promote_fully(**members: Any) -> PromoteRollout:
    return promote(**{"to": "full", **members})


def abort(rollout_id: str = "r1", **members: Any) -> AbortRollout:
    return AbortRollout(rollout_id=rollout_id, **members)


# ------------------------------------------------------------------------------------------ Events


def started(old: str = V1, new: str = V2, rollout_id: str = "r1", **members: Any) -> RolloutStarted:
    steps = members.get("steps", STEPS)
    given = {
        "steps": steps,
        "analysis": Analysis(),
        "hold_until": at(steps[0].hold_s),
        "policy": shared(steps[0].weight, old, new),
        **members,
    }
    return RolloutStarted(rollout_id=rollout_id, baseline=old, candidate=new, **given)


def advanced(step: int, reason: Reason = "passed", **members: Any) -> RolloutAdvanced:
    policy = shared(STEPS[step].weight)
    given = {"rollout_id": "r1", "hold_until": at(HOLD_S), "policy": policy, **members}
    return RolloutAdvanced(step=step, reason=reason, **given)


def under_way(step: int = 0) -> tuple[Event, ...]:
    """What happened until the step was in force."""
    return (started(), *(advanced(index) for index in range(1, step + 1)))


def held(step: int, *verdicts: Verdict) -> RolloutHeld:
    return RolloutHeld(rollout_id="r1", step=step, reason="inconclusive", verdicts=verdicts)


def paused(step: int, left_s: float = HOLD_S) -> RolloutHeld:
    return RolloutHeld(rollout_id="r1", step=step, reason="paused", hold_left_s=left_s)


def resumed(step: int, hold_until: datetime = NOW + timedelta(seconds=HOLD_S)) -> RolloutResumed:
    return RolloutResumed(rollout_id="r1", step=step, hold_until=hold_until)


def completed(reason: Reason = "passed", **members: Any) -> RolloutCompleted:
    given = {"baseline": V1, "candidate": V2, "policy": full(V2), **members}
    return RolloutCompleted(rollout_id="r1", reason=reason, **given)


def aborted(reason: Any, step: int = 0, detail: str = "", **members: Any) -> RolloutAborted:
    given = {"rollout_id": "r1", "baseline": V1, "candidate": V2, **members}
    return RolloutAborted(reason=reason, step=step, detail=detail, **given)


def aborted_and_back(step: int = 0) -> tuple[Event, Event]:
    """An operator aborted the rollout."""
    return aborted("aborted", step), returned("rollout aborted")


def returned(reason: str) -> Event:
    """Traffic goes back from V2 to V1."""
    return rolled_back(V1, V2, reason=reason)

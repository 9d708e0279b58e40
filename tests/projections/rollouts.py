"""Rollouts of the small world in `tests.projections.history`: every way one goes on or ends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

from events import Event
from events.catalogue.endpoints import (
    Analysis,
    Policy,
    RolledBack,
    RolloutAborted,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutHeld,
    RolloutResumed,
    RolloutStarted,
    Step,
    Verdict,
)

HOLD_UNTIL = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
STEPS = (
    Step(weight=5.0, hold_s=60.0, min_samples=200),
    Step(weight=50.0, hold_s=120.0),
    Step(weight=100.0, hold_s=0.5),
)
ANALYSIS = Analysis(metric="latency", max_latency_ms=250.0, on_inconclusive="rollback")
GOOD = Verdict(
    metric="error_rate",
    outcome="pass",
    baseline_samples=950,
    candidate_samples=50,
    estimate=0.001,
    interval=(-0.01, 0.012),
    e_value=0.4,
    alpha=0.025,
    threshold=40.0,
)
UNSURE = Verdict(
    metric="latency", outcome="inconclusive", baseline_samples=0, candidate_samples=0, alpha=0.025
)
BAD = Verdict(
    metric="error_rate", outcome="fail", baseline_samples=9, candidate_samples=9, alpha=0.025
)


def shared(baseline: str, candidate: str, weight: float) -> Policy:
    return Policy(split={baseline: 100.0 - weight, candidate: weight})


def hold_until(step: int) -> datetime:
    return HOLD_UNTIL + timedelta(minutes=step)


def started(rollout: str, baseline: str, candidate: str) -> RolloutStarted:
    return RolloutStarted(
        rollout_id=rollout,
        baseline=baseline,
        candidate=candidate,
        steps=STEPS,
        analysis=ANALYSIS,
        hold_until=hold_until(0),
        policy=shared(baseline, candidate, STEPS[0].weight),
    )


def advanced(
    rollout: str, step: int, baseline: str, candidate: str, *verdicts: Verdict
) -> RolloutAdvanced:
    return RolloutAdvanced(
        rollout_id=rollout,
        step=step,
        reason="passed",
        hold_until=hold_until(step),
        policy=shared(baseline, candidate, STEPS[step].weight),
        verdicts=verdicts,
    )


def held(rollout: str, step: int, *verdicts: Verdict) -> RolloutHeld:
    return RolloutHeld(rollout_id=rollout, step=step, reason="inconclusive", verdicts=verdicts)


def paused(rollout: str, step: int) -> RolloutHeld:
    return RolloutHeld(rollout_id=rollout, step=step, reason="paused", hold_left_s=12.5)


def resumed(rollout: str, step: int) -> RolloutResumed:
    return RolloutResumed(rollout_id=rollout, step=step, hold_until=hold_until(9))


def completed(rollout: str, baseline: str, candidate: str, *verdicts: Verdict) -> RolloutCompleted:
    return RolloutCompleted(
        rollout_id=rollout,
        baseline=baseline,
        candidate=candidate,
        reason="passed",
        policy=Policy(split={candidate: 100.0}),
        verdicts=verdicts,
    )


def aborted(
    rollout: str,
    step: int,
    reason: Literal["failed", "superseded"],
    *verdicts: Verdict,
    baseline: str = "1.0.0",
    candidate: str = "2.0.0",
) -> RolloutAborted:
    return RolloutAborted(
        rollout_id=rollout,
        baseline=baseline,
        candidate=candidate,
        step=step,
        reason=reason,
        detail=f"it {reason}",
        verdicts=verdicts,
    )


def rolled_back(to: str, *from_versions: str) -> RolledBack:
    return RolledBack(
        from_versions=from_versions,
        to_version=to,
        reason="a verdict",
        policy=Policy(split={to: 100.0}),
    )


FAILED: Sequence[Sequence[Event]] = (
    [started("r1", "1.0.0", "2.0.0")],
    [advanced("r1", 1, "1.0.0", "2.0.0", GOOD)],
    [held("r1", 1, GOOD, UNSURE)],
    [aborted("r1", 1, "failed", BAD), rolled_back("1.0.0", "2.0.0")],
)
"""Passes a step, is held, fails, and traffic returns."""

PAUSED: Sequence[Sequence[Event]] = (
    [started("r2", "1.0.0", "2.0.0")],
    [paused("r2", 0)],
    [resumed("r2", 0)],
)
"""Paused and resumed, and still running."""

COMPLETED: Sequence[Sequence[Event]] = (
    [started("r1", "1.0.0", "2.0.0")],
    [advanced("r1", 1, "1.0.0", "2.0.0", UNSURE)],
    [advanced("r1", 2, "1.0.0", "2.0.0")],
    [completed("r1", "1.0.0", "2.0.0", GOOD)],
    [started("r2", "2.0.0", "3.0.0")],
    [paused("r2", 0)],
)
"""One that gives all traffic to the candidate, and one after it that is paused."""

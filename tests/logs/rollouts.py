"""The recorded histories of rollouts: how each way of ending, or of not ending, is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from engine.decisions import endpoint
from events.catalogue.endpoints import Analysis, Comparison, Policy, Shadow, Step, Verdict
from tests.logs.recorder import History, Recorder, begin

_QUICK: Final = (
    Step(weight=10.0, hold_s=20.0, min_samples=50),
    Step(weight=50.0, hold_s=20.0),
)


async def canary_completed(record: Recorder) -> None:
    """The default steps pass one after the other; after that, a second candidate completes in one
    step, and is rolled back by hand."""
    await _served(record, "2.0.0", "3.0.0")
    await record.start_rollout("canary-1", "2.0.0")
    for step, samples in enumerate((120, 250, 600, 1_200, 2_500)):
        await record.advance("canary-1", step, _passed(samples), _ratio(samples))
    await record.start_rollout("canary-2", "3.0.0", Step(weight=33.3, hold_s=0.0))
    await record.advance("canary-2", 0, reason="inconclusive")
    await record.endpoint(endpoint.RollBack(reason="the old one was kinder"))


async def canary_rolled_back(record: Recorder) -> None:
    """The first step passes, in the second the candidate fails, and all traffic returns."""
    await _served(record, "2.0.0")
    await record.policy(
        Policy(
            split={"1.0.0": 100.0},
            shadow=(Shadow(version="2.0.0", compare=Comparison(kind="text", similarity=0.9)),),
        )
    )
    analysis = Analysis(metric="timeout_rate", alpha=0.01, max_disagreement_rate=0.1)
    await record.start_rollout("canary-1", "2.0.0", *_QUICK, analysis=analysis)
    await record.advance("canary-1", 0, _passed(80))
    await record.fail("canary-1", _FAILED, _ratio(90), detail="error_rate")


async def canary_held(record: Recorder) -> None:
    """Nobody asks anything, so the first step is held; it is paused, resumed, held again, promoted
    by hand, and superseded by a policy. The next one is aborted by hand, the last one is live."""
    await _served(record, "2.0.0")
    await record.start_rollout("canary-1", "2.0.0", *_QUICK)
    await record.hold("canary-1", 0, _UNSURE)
    await record.endpoint(endpoint.PauseRollout(rollout_id="canary-1", now=record.now))
    await record.endpoint(endpoint.ResumeRollout(rollout_id="canary-1", now=record.now))
    await record.hold("canary-1", 0, _UNSURE)
    promote = endpoint.PromoteRollout(
        rollout_id="canary-1", to="next", from_step=0, now=record.now, resident=record.resident
    )
    await record.endpoint(promote)
    await record.policy(Policy(split={"1.0.0": 3.0, "2.0.0": 1.0}))
    await record.policy(Policy(split={"1.0.0": 1.0}))
    await record.start_rollout("canary-2", "2.0.0", *_QUICK)
    await record.endpoint(endpoint.AbortRollout(rollout_id="canary-2", detail="not today"))
    await record.start_rollout("canary-3", "2.0.0", *_QUICK)
    await record.endpoint(endpoint.PauseRollout(rollout_id="canary-3", now=record.now))


async def canary_with_fallbacks(record: Recorder) -> None:
    """Fallbacks outlast a swap and the first step of a rollout. The candidate's answers are bad, so
    it is rolled back, and is a fallback no more; the next one completes beside what is left."""
    await _served(record, "2.0.0", "3.0.0")
    await record.policy(Policy(split={"1.0.0": 1.0}, fallback=("2.0.0", "1.0.0")))
    await record.request_swap("swap-1", "3.0.0")
    await record.complete_swap("swap-1")
    analysis = Analysis(metric="quality", check="is_polite")
    await record.start_rollout("canary-1", "2.0.0", *_QUICK, analysis=analysis)
    await record.advance("canary-1", 0, _passed(80))
    await record.fail("canary-1", _RUDE, _ratio(90), detail="quality")
    await record.start_rollout("canary-2", "1.0.0", *_QUICK)
    await record.advance("canary-2", 0, _passed(80))
    await record.advance("canary-2", 1, _passed(160))


HISTORIES: Final[Mapping[str, History]] = {
    "canary-completed": canary_completed,
    "canary-rolled-back": canary_rolled_back,
    "canary-held": canary_held,
    "canary-with-fallbacks": canary_with_fallbacks,
}
"""File name -> history."""

_UNSURE: Final = Verdict(
    metric="error_rate", outcome="inconclusive", baseline_samples=0, candidate_samples=0, alpha=0.05
)
_FAILED: Final = Verdict(
    metric="error_rate",
    outcome="fail",
    baseline_samples=90,
    candidate_samples=85,
    estimate=0.25,
    interval=(0.125, 0.375),
    e_value=412.5,
    alpha=0.005,
    threshold=200.0,
    detail="24 of 85 against 2 of 90",
)

_RUDE: Final = Verdict(
    metric="quality",
    outcome="fail",
    baseline_samples=880,
    candidate_samples=95,
    estimate=0.5,
    interval=(0.375, 0.625),
    e_value=1_024.0,
    alpha=0.025,
    threshold=40.0,
    detail="57 of 95 against 88 of 880",
)


async def _served(record: Recorder, *candidates: str) -> None:
    """1.0.0 takes all traffic, and the candidates are resident beside it."""
    await begin(record)
    for version in candidates:
        await record.register(version)
    await record.load("node-1", "1.0.0", *candidates)
    await record.create("1.0.0")


def _passed(samples: int) -> Verdict:
    return Verdict(
        metric="error_rate",
        outcome="pass",
        baseline_samples=19 * samples,
        candidate_samples=samples,
        estimate=-0.001,
        interval=(-0.01, 0.0125),
        e_value=0.5,
        alpha=0.05,
        threshold=20.0,
    )


def _ratio(samples: int) -> Verdict:
    return Verdict(
        metric="sample_ratio",
        outcome="pass",
        baseline_samples=19 * samples,
        candidate_samples=samples,
        e_value=0.25,
        alpha=0.001,
        threshold=1_000.0,
    )

"""Simulated rollouts, judged by the evidence as in production, a window of one second at a time."""

from __future__ import annotations

from typing import Final

import msgspec
import numpy as np

from engine.analysis import Evidence
from engine.analysis.looking import Outcome
from events.catalogue.endpoints import Analysis, Step
from switchback.bench.trials import Arms, constant, independent, window

WEIGHTS: Final = (5.0, 10.0, 25.0, 50.0, 100.0)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a step ended."""

    outcome: Outcome
    """`inconclusive`: it did not end within the time."""
    samples: int
    """Requests that the candidate answered in this step."""
    seconds: int


def ramp(
    generator: np.random.Generator,
    *,
    rate: float,
    harm: float,
    requests_per_s: int,
    step_seconds_max: int,
    weights: tuple[float, ...] = WEIGHTS,
    analysis: Analysis | None = None,
) -> list[Ended]:
    """A rollout that moves on as soon as it may: its steps up to the first that does not pass."""
    evidence = Evidence(baseline="baseline", candidate="candidate", analysis=analysis or Analysis())
    steps: list[Ended] = []
    for number, weight in enumerate(weights):
        arms = independent(
            generator,
            runs=1,
            shares=constant(weight / 100.0, step_seconds_max),
            rates=constant(rate, step_seconds_max),
            requests=requests_per_s,
            harm=harm,
        )
        evidence.enter(step=number, policy=number + 1, share=weight / 100.0)
        steps.append(_step(evidence, arms, number, Step(weight=weight, hold_s=0.0)))
        if steps[-1].outcome != "pass":
            break
    return steps


def _step(evidence: Evidence, arms: Arms, number: int, step: Step) -> Ended:
    samples = 0
    for second in range(len(arms.shares)):
        samples += int(arms.candidate[0, second])
        evidence.observe(window(number + 1, arms, 0, second))
        outcome = evidence.judge(step).outcome
        if outcome != "inconclusive":
            return Ended(outcome=outcome, samples=samples, seconds=second + 1)
    return Ended(outcome="inconclusive", samples=samples, seconds=len(arms.shares))


def detection_s(
    generator: np.random.Generator, *, bad_rate: float, requests_per_s: int, seconds_max: int
) -> int | None:
    """Seconds until a candidate with 5 % of the traffic, against a rate of 1 %, has failed.

    It is kept in its step until then. None if it has not by then.
    """
    arms = independent(
        generator,
        runs=1,
        shares=constant(0.05, seconds_max),
        rates=constant(0.01, seconds_max),
        requests=requests_per_s,
        harm=bad_rate / 0.01,
    )
    evidence = Evidence(baseline="baseline", candidate="candidate", analysis=Analysis())
    evidence.enter(step=0, policy=1, share=0.05)
    step = Step(weight=5.0, hold_s=0.0)
    for second in range(seconds_max):
        evidence.observe(window(1, arms, 0, second))
        if evidence.judge(step).outcome == "fail":
            return second + 1
    return None

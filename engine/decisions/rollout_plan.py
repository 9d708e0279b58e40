"""The plan of a rollout: its steps and how it is judged, and what can be wrong with them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Final, TypeAlias

from engine.decisions.policy import WEIGHT_MIN
from events.catalogue.endpoints import Analysis, Policy, Step
from events.event import IDENTIFIER

DEFAULT_STEPS: Final = tuple(
    Step(weight=weight, hold_s=60.0, min_samples=100) for weight in (5.0, 10.0, 25.0, 50.0, 100.0)
)
STEPS_MAX: Final = 32
WEIGHT_FULL: Final = 100.0
HOLD_SECONDS_MAX: Final = 30 * 24 * 3_600.0
MIN_SAMPLES_MAX: Final = 1_000_000_000
ALPHA_MAX: Final = 0.5
LATENCY_MS_MAX: Final = 3_600_000.0
LATENCY_RATIO_MAX: Final = 1_000.0

Problem: TypeAlias = tuple[str, str]
"""(path, what is wrong with it)."""


def problems(
    *, steps: Sequence[Step], analysis: Analysis, to: str, baseline: str, policy: Policy
) -> dict[str, str]:
    """Path -> what is wrong there; empty if nothing is. Whether versions exist is not asked.

    `policy`: the endpoint's, when the rollout is to begin.
    """
    return dict(chain(_candidate(to, baseline), _steps(steps), _analysis(analysis, to, policy)))


def _candidate(to: str, baseline: str) -> Iterator[Problem]:
    if to == baseline:
        yield "to", "takes all traffic already"


def _steps(steps: Sequence[Step]) -> Iterator[Problem]:
    if not 1 <= len(steps) <= STEPS_MAX:
        yield "steps", f"must be 1 to {STEPS_MAX}"
        return
    for index, step in enumerate(steps):
        yield from _step(f"steps[{index}]", step)
    for index in range(1, len(steps)):
        if steps[index].weight <= steps[index - 1].weight:
            yield f"steps[{index}].weight", "must be more than that of the step before"
    if steps[-1].weight == 0:
        yield f"steps[{len(steps) - 1}].weight", "must be more than 0: it is the last"


def _step(path: str, step: Step) -> Iterator[Problem]:
    # Both shares stay representable, as in any policy.
    between = WEIGHT_MIN <= step.weight <= WEIGHT_FULL - WEIGHT_MIN
    if step.weight not in (0, WEIGHT_FULL) and not between:
        yield f"{path}.weight", f"must be 0 to 100, and no nearer to either than {WEIGHT_MIN:g}"
    if not 0 <= step.hold_s <= HOLD_SECONDS_MAX:
        yield f"{path}.hold_s", f"must be 0 to {HOLD_SECONDS_MAX:.0f} (30 days)"
    if not 0 <= step.min_samples <= MIN_SAMPLES_MAX:
        yield f"{path}.min_samples", f"must be 0 to {MIN_SAMPLES_MAX}"


def _analysis(analysis: Analysis, to: str, policy: Policy) -> Iterator[Problem]:
    if not 0 < analysis.alpha <= ALPHA_MAX:
        yield "analysis.alpha", f"must be above 0 and at most {ALPHA_MAX:g}"
    if not 0 <= analysis.margin <= 1:
        yield "analysis.margin", "must be 0 to 1"
    yield from _rate("analysis.max_error_rate", analysis.max_error_rate)
    yield from _rate("analysis.max_disagreement_rate", analysis.max_disagreement_rate)
    yield from _limit("analysis.max_latency_ms", analysis.max_latency_ms, LATENCY_MS_MAX)
    yield from _limit("analysis.max_latency_ratio", analysis.max_latency_ratio, LATENCY_RATIO_MAX)
    if analysis.metric == "latency" and analysis.max_latency_ms is None:
        yield "analysis.max_latency_ms", "is missing: the metric latency needs it"
    yield from _check(analysis)
    shadows = {shadow.version for shadow in policy.shadow}
    if analysis.max_disagreement_rate is not None and to not in shadows:
        yield "analysis.max_disagreement_rate", "needs the candidate as a shadow in the policy"


def _check(analysis: Analysis) -> Iterator[Problem]:
    if analysis.metric == "quality" and analysis.check is None:
        yield "analysis.check", "is missing: the metric quality needs it"
    elif analysis.metric != "quality" and analysis.check is not None:
        yield "analysis.check", "is for the metric quality only"
    elif analysis.check is not None and not IDENTIFIER.match(analysis.check):
        yield "analysis.check", "must be 1 to 64 of A-Z a-z 0-9 _ -, not beginning with _ -"


def _rate(path: str, rate: float | None) -> Iterator[Problem]:
    if rate is not None and not 0 < rate < 1:
        yield path, "must be above 0 and below 1"


def _limit(path: str, value: float | None, most: float) -> Iterator[Problem]:
    if value is not None and not 0 < value <= most:
        yield path, f"must be above 0 and at most {most:.0f}"

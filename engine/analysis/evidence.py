"""The evidence of one rollout: windows in, a judgement out.

    evidence = Evidence(baseline="1.0.0", candidate="2.0.0", analysis=analysis)
    evidence.enter(step=0, policy=4711, share=0.05)
    evidence.observe(window)
    judgement = evidence.judge(step)

Guarantees: over the whole rollout, a candidate as good as its baseline fails with probability
`analysis.alpha` at most, however often one looks and whenever steps begin; what has failed stays
failed; the same windows give the same judgement, whenever `judge` is called; without windows of the
current step nothing passes. The guarantee rests on keys that are independent of each other and
counted once; `max_latency_ratio` alone is asymptotic.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

import msgspec

from engine.analysis.checked import AmongChecked
from engine.analysis.counts import bad_answers, errors, slower_than, timeouts
from engine.analysis.limits import Disagreement, LatencyRatio, RateLimit
from engine.analysis.looking import NO_COPIES, NO_REQUESTS, Judged, Look, Observed, Outcome
from engine.analysis.rate_metrics import RateMetric
from engine.analysis.sample_ratio import SampleRatio
from events.catalogue.endpoints import Analysis, Step, Verdict
from events.catalogue.traffic import WindowObserved
from events.event import Position

WINDOWS_AHEAD_MAX: Final = 5_000
"""Windows that are kept until their step is entered; of more, the oldest are forgotten."""
SLOW_SHARE_MAX: Final = 0.05
"""Of the candidate's requests may take longer than `max_latency_ms`."""


Maker: TypeAlias = Callable[[float], Judged]
"""Alpha -> what judges with it."""


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What the evidence says about the current step."""

    outcome: Outcome
    """`fail` if any verdict fails, `pass` if all pass."""
    verdicts: tuple[Verdict, ...]


class Evidence:
    """Folds the windows of one rollout."""

    def __init__(self, *, baseline: str, candidate: str, analysis: Analysis) -> None:
        """Raises ValueError for metric `latency` without `max_latency_ms`."""
        self._baseline = baseline
        self._candidate = candidate
        self._judged = _judged(analysis)
        self._entered: dict[Position, tuple[int, float]] = {}
        self._latest: Position = 0
        self._ahead: deque[WindowObserved] = deque(maxlen=WINDOWS_AHEAD_MAX)
        self._seen: set[int] = set()
        """Steps of which a request was seen."""

    def enter(self, *, step: int, policy: Position, share: float) -> None:
        """A step is in force: by the policy set at this position, with this share, 0 to 1.

        Policies are entered in the order of their positions. Entering one again changes nothing.
        """
        self._entered.setdefault(policy, (step, share))
        self._latest = max(self._latest, policy)
        ahead = list(self._ahead)
        self._ahead.clear()
        for window in ahead:
            self.observe(window)

    def observe(self, window: WindowObserved) -> None:
        """Count a window, once. Windows of policies that are not of this rollout count nothing."""
        entered = self._entered.get(window.policy)
        if entered is None:
            if window.policy > self._latest:
                self._ahead.append(window)
            return
        step, share = entered
        observed = Observed(
            window.gateway,
            step,
            share,
            window.versions.get(self._baseline, NO_REQUESTS),
            window.versions.get(self._candidate, NO_REQUESTS),
            window.shadows.get(self._candidate, NO_COPIES),
        )
        if observed.baseline.requests or observed.candidate.requests:
            self._seen.add(step)
        for judged in self._judged:
            judged.observe(observed)

    def judge(self, step: Step) -> Judgement:
        """Judge the step that was entered last."""
        number, share = self._entered.get(self._latest, (0, 0.0))
        look = Look(number, share, step.min_samples, number in self._seen)
        verdicts = tuple(judged.verdict(look) for judged in self._judged)
        return Judgement(outcome=_outcome(verdicts), verdicts=verdicts)


def _judged(analysis: Analysis) -> tuple[Judged, ...]:
    """What this analysis judges; alpha is split evenly, but sample ratio has its own."""
    makers = [*_metrics(analysis), *_limits(analysis)]
    alpha = analysis.alpha / len(makers)
    return (*(make(alpha) for make in makers), SampleRatio())


def _metrics(analysis: Analysis) -> Iterator[Maker]:
    margin = analysis.margin
    yield lambda alpha: RateMetric("error_rate", errors, alpha=alpha, margin=margin)
    if analysis.metric == "timeout_rate":
        yield lambda alpha: RateMetric("timeout_rate", timeouts, alpha=alpha, margin=margin)
    if analysis.metric == "latency":
        if analysis.max_latency_ms is None:
            raise ValueError("metric latency needs max_latency_ms")
        slow = slower_than(analysis.max_latency_ms)
        yield lambda alpha: RateMetric("latency", slow, alpha=alpha, margin=margin)
    if analysis.metric == "quality":
        yield lambda alpha: RateMetric(
            "quality", bad_answers, alpha=alpha, margin=margin, harm=AmongChecked()
        )


def _limits(analysis: Analysis) -> Iterator[Maker]:
    if (rate := analysis.max_error_rate) is not None:
        yield lambda alpha: RateLimit("max_error_rate", errors, limit=rate, alpha=alpha)
    if (limit_ms := analysis.max_latency_ms) is not None:
        slow = slower_than(limit_ms)
        yield lambda alpha: RateLimit("max_latency_ms", slow, limit=SLOW_SHARE_MAX, alpha=alpha)
    if (ratio := analysis.max_latency_ratio) is not None:
        yield lambda alpha: LatencyRatio(ratio=ratio, alpha=alpha)
    if (share := analysis.max_disagreement_rate) is not None:
        yield lambda alpha: Disagreement(limit=share, alpha=alpha)


def _outcome(verdicts: tuple[Verdict, ...]) -> Outcome:
    outcomes = {verdict.outcome for verdict in verdicts}
    if "fail" in outcomes:
        return "fail"
    return "inconclusive" if "inconclusive" in outcomes else "pass"

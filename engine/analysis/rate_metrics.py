"""Failure-like metrics of a rollout: error rate, time-outs, latency over an objective, quality.

Two questions, answered by different counts. *Is the candidate worse?* The arms of failing keys over
all steps say it, at each key's share, whatever the rates do: `GatewayTests`; of bad answers, the
arms of those that were checked: `AmongChecked`. *Is it good enough to go on?* The rates of requests
in the current step say it, where shares are constant, so that a drift of the rate cannot look like
a difference: the interval of the difference lies below a margin.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final, Protocol

from engine.analysis.assignment import GatewayTests
from engine.analysis.counts import NOTHING, Count, Metric, rate_interval
from engine.analysis.looking import Look, Observed, Outcome, not_judged, shortage
from events.catalogue.endpoints import Verdict

BASELINE_SAMPLES_MIN: Final = 100
"""With fewer in this step, the baseline's rate is taken from the latest step that had as many."""


class Harm(Protocol):
    """Evidence that the candidate is worse, valid at every look."""

    @property
    def worse(self) -> str:
        """What it means when there is enough."""

    @property
    def e_value(self) -> float: ...

    @property
    def peak(self) -> float:
        """The largest e-value so far."""

    def observe(self, observed: Observed, baseline: Count, candidate: Count) -> None:
        """A window, and what the metric counts of it."""


class ByShare:
    """The arms of failing keys, at the candidate's share of the traffic."""

    worse = "more keys fail on the candidate than its share of the traffic explains"

    def __init__(self) -> None:
        self._tests = GatewayTests()

    @property
    def e_value(self) -> float:
        return self._tests.e_value

    @property
    def peak(self) -> float:
        return self._tests.peak

    def observe(self, observed: Observed, baseline: Count, candidate: Count) -> None:
        self._tests.observe(
            observed.gateway,
            observed.share,
            in_baseline=baseline.failing_keys,
            in_candidate=candidate.failing_keys,
        )


class RateMetric:
    """A rate, compared with the baseline's."""

    def __init__(
        self, name: str, metric: Metric, *, alpha: float, margin: float, harm: Harm | None = None
    ) -> None:
        """`harm`: what shows that the candidate is worse; ByShare unless said otherwise."""
        self._name = name
        self._metric = metric
        self._alpha = alpha
        self._margin = margin
        self._harm: Harm = ByShare() if harm is None else harm
        self._baseline: defaultdict[int, Count] = defaultdict(Count)
        self._candidate: defaultdict[int, Count] = defaultdict(Count)
        self._totals = (NOTHING, NOTHING)

    def observe(self, observed: Observed) -> None:
        baseline, candidate = self._metric(observed.baseline), self._metric(observed.candidate)
        self._baseline[observed.step] += baseline
        self._candidate[observed.step] += candidate
        self._totals = (self._totals[0] + baseline, self._totals[1] + candidate)
        self._harm.observe(observed, baseline, candidate)

    def verdict(self, look: Look) -> Verdict:
        candidate = self._candidate.get(look.step, NOTHING)
        baseline = self._baseline_of(look.step)
        low, high = self._interval(baseline, candidate)
        known = baseline.samples and candidate.samples
        outcome, detail = self._outcome(look, candidate, high)
        return Verdict(
            metric=self._name,
            outcome=outcome,
            baseline_samples=self._baseline.get(look.step, NOTHING).samples,
            candidate_samples=candidate.samples,
            estimate=candidate.rate - baseline.rate if known else None,
            interval=(low, high) if candidate.samples else None,
            e_value=self._harm.peak if self._alarmed else self._harm.e_value,
            alpha=self._alpha,
            threshold=1.0 / self._alpha,
            detail=detail,
        )

    @property
    def _alarmed(self) -> bool:
        return self._harm.peak >= 1.0 / self._alpha

    def _outcome(self, look: Look, candidate: Count, high: float) -> tuple[Outcome, str]:
        if self._alarmed:
            return "fail", self._harm.worse
        if (reason := not_judged(look)) is not None:
            return "pass", reason
        if (reason := shortage(look, candidate.samples)) is not None:
            return "inconclusive", reason
        if high > self._margin:
            return "inconclusive", (
                f"the candidate's rate may exceed the baseline's by {high:.2%};"
                f" {self._margin:.2%} are allowed{_unknown(candidate)}"
            )
        return "pass", (
            f"the candidate's rate exceeds the baseline's by at most {high:.2%};"
            f" {self._margin:.2%} are allowed"
        )

    def _baseline_of(self, step: int) -> Count:
        """This step's, or an earlier one's where the baseline has hardly any traffic."""
        for earlier in range(step, -1, -1):
            counted = self._baseline.get(earlier, NOTHING)
            if counted.samples >= BASELINE_SAMPLES_MIN:
                return counted
        return self._baseline.get(step, NOTHING)

    def _interval(self, baseline: Count, candidate: Count) -> tuple[float, float]:
        half = self._alpha / 2.0
        of_baseline, of_candidate = self._totals
        low_b, high_b = rate_interval(baseline, weight=of_baseline.repeats, alpha=half)
        low_c, high_c = rate_interval(candidate, weight=of_candidate.repeats, alpha=half)
        return low_c - high_b, high_c - low_b


def _unknown(candidate: Count) -> str:
    if not candidate.unknown:
        return ""
    return f"; of {candidate.unknown} of its answers it is not known whether they are bad"

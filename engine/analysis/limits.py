"""Limits of a rollout: what its candidate may not exceed, whatever the baseline does."""

from __future__ import annotations

from collections import defaultdict

from engine.analysis.counts import NOTHING, Metric, rate_interval
from engine.analysis.looking import Look, Observed, Outcome, not_judged, shortage
from engine.analysis.means import SAMPLES_MIN, Moments, difference
from engine.analysis.rates import evidence_above, interval, lower_bound, upper_bound
from engine.analysis.sketches import moments
from events.catalogue.endpoints import Verdict
from events.catalogue.traffic import VersionWindow


class RateLimit:
    """The candidate's own rate, over all steps, against a limit."""

    def __init__(self, name: str, metric: Metric, *, limit: float, alpha: float) -> None:
        self._name = name
        self._metric = metric
        self._limit = limit
        self._alpha = alpha
        self._total = NOTHING
        self._steps: defaultdict[int, int] = defaultdict(int)
        self._peak = 1.0

    def observe(self, observed: Observed) -> None:
        counted = self._metric(observed.candidate)
        self._steps[observed.step] += counted.samples
        self._total += counted
        if counted.failures:  # without one the evidence only gets less
            self._peak = max(self._peak, self._e_value())

    def verdict(self, look: Look) -> Verdict:
        alarmed = self._peak >= 1.0 / self._alpha
        outcome, detail = self._outcome(look, alarmed=alarmed)
        total = self._total
        return Verdict(
            metric=self._name,
            outcome=outcome,
            baseline_samples=0,
            candidate_samples=self._steps.get(look.step, 0),
            estimate=total.rate if total.samples else None,
            interval=self._interval() if total.samples else None,
            e_value=self._peak if alarmed else self._e_value(),
            alpha=self._alpha,
            threshold=1.0 / self._alpha,
            detail=detail,
        )

    def _interval(self) -> tuple[float, float]:
        return rate_interval(self._total, weight=self._total.repeats, alpha=self._alpha)

    def _e_value(self) -> float:
        total = self._total
        weight = total.repeats
        return evidence_above(total.failures / weight, total.samples / weight, limit=self._limit)

    def _outcome(self, look: Look, *, alarmed: bool) -> tuple[Outcome, str]:
        if alarmed:
            return "fail", f"the candidate's rate is above its limit of {self._limit:.2%}"
        if (reason := not_judged(look)) is not None:
            return "pass", reason
        if (reason := shortage(look, self._steps.get(look.step, 0))) is not None:
            return "inconclusive", reason
        return "pass", f"the candidate's rate is not shown to be above {self._limit:.2%}"


class LatencyRatio:
    """The candidate's mean latency against the baseline's times a ratio, step by step.

    Steps are apart because shares and latencies may both change between them; step k, from 0, gets
    1 / ((k + 1)(k + 2)) of alpha, which adds up to all of it. Answers count as independent.
    """

    def __init__(self, *, ratio: float, alpha: float) -> None:
        self._ratio = ratio
        self._alpha = alpha
        self._baseline: defaultdict[int, Moments] = defaultdict(Moments)
        self._candidate: defaultdict[int, Moments] = defaultdict(Moments)
        self._failed = False

    def observe(self, observed: Observed) -> None:
        self._baseline[observed.step] += _latencies(observed.baseline)
        self._candidate[observed.step] += _latencies(observed.candidate)
        both = self._difference(observed.step)
        self._failed = self._failed or (both is not None and both[0] > 0.0)

    def verdict(self, look: Look) -> Verdict:
        baseline = self._baseline[look.step]
        candidate = self._candidate[look.step]
        both = self._difference(look.step)
        outcome, detail = self._outcome(look, candidate.count, both)
        return Verdict(
            metric="max_latency_ratio",
            outcome=outcome,
            baseline_samples=baseline.count,
            candidate_samples=candidate.count,
            estimate=candidate.mean - self._ratio * baseline.mean if both else None,
            interval=both,
            alpha=self._alpha,
            threshold=0.0,
            detail=f"{detail} (asymptotic)",
        )

    def _difference(self, step: int) -> tuple[float, float] | None:
        part = 1.0 / ((step + 1) * (step + 2))
        baseline, candidate = self._baseline[step], self._candidate[step]
        return difference(baseline, candidate, alpha=self._alpha * part, ratio=self._ratio)

    def _outcome(
        self, look: Look, samples: int, both: tuple[float, float] | None
    ) -> tuple[Outcome, str]:
        if self._failed:
            return "fail", f"the candidate's mean latency is above {self._ratio:g} x the baseline's"
        if (reason := not_judged(look)) is not None:
            return "pass", reason
        if (reason := shortage(look, samples)) is not None:
            return "inconclusive", reason
        if look.share == 1.0:
            return "pass", "not judged: the baseline gets no requests in this step"
        if both is None:
            return "inconclusive", f"fewer than {SAMPLES_MIN} answers of each version in this step"
        return "pass", (
            f"the candidate's mean latency is not shown to be above"
            f" {self._ratio:g} x the baseline's"
        )


class Disagreement:
    """How often the candidate, as a shadow, answers differently, over all steps.

    To fail, answers that differ are counted among compared copies. To pass, copies that failed are
    counted as differing too: a shadow that cannot answer does not agree.
    """

    def __init__(self, *, limit: float, alpha: float) -> None:
        self._limit = limit
        self._alpha = alpha
        self._compared = 0
        self._agreed = 0
        self._failed = 0
        self._low = 0.0
        self._steps: defaultdict[int, int] = defaultdict(int)

    def observe(self, observed: Observed) -> None:
        shadow = observed.shadow
        self._compared += shadow.compared
        self._agreed += shadow.agreed
        self._failed += sum(shadow.errors.values())
        self._steps[observed.step] += shadow.compared
        if shadow.compared > shadow.agreed:  # otherwise the bound only gets less
            low = lower_bound(self._differed, self._compared, alpha=self._alpha / 2.0)
            self._low = max(self._low, low)

    def verdict(self, look: Look) -> Verdict:
        low, high = interval(self._differed, self._compared, alpha=self._alpha)
        outcome, detail = self._outcome(look, self._worst())
        return Verdict(
            metric="max_disagreement_rate",
            outcome=outcome,
            baseline_samples=0,
            candidate_samples=self._compared,
            estimate=self._differed / self._compared if self._compared else None,
            interval=(low, high) if self._compared else None,
            alpha=self._alpha,
            threshold=self._limit,
            detail=detail,
        )

    @property
    def _differed(self) -> int:
        return self._compared - self._agreed

    def _worst(self) -> float:
        copies = self._compared + self._failed
        return upper_bound(self._differed + self._failed, copies, alpha=self._alpha / 2.0)

    def _outcome(self, look: Look, worst: float) -> tuple[Outcome, str]:
        if self._low > self._limit:
            return "fail", f"the candidate disagrees more often than {self._limit:.2%}"
        if not self._compared:
            return "inconclusive", "no copy has been compared"
        if look.share == 0.0 and (reason := shortage(look, self._steps.get(look.step, 0))):
            return "inconclusive", reason
        if worst >= self._limit:
            return "inconclusive", (
                f"the candidate may disagree in {worst:.2%}; {self._limit:.2%} are allowed"
            )
        return "pass", (
            f"the candidate disagrees in at most {worst:.2%}; {self._limit:.2%} are allowed"
        )


def _latencies(window: VersionWindow) -> Moments:
    return moments(window.latency) if window.latency is not None else Moments()

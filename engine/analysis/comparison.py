"""Two versions side by side, over any span of windows.

Past splits are not known here, so the arms of failures say nothing; each version's error rate has
an interval of its own instead, valid at every look for the average rate over its requests, and the
difference lies between their ends. Requests of a key are counted as fewer, as in a rollout. A split
or a load that changed within the span can look like a difference: the answer says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from engine.analysis.counts import NOTHING, Count, bad_answers, errors, rate_interval
from engine.analysis.looking import Outcome
from engine.analysis.means import difference
from engine.analysis.sketches import Merged, moments, quantile
from events.catalogue.traffic import LatencySketch, VersionWindow, WindowObserved

ALPHA: Final = 0.05
MARGIN: Final = 0.02
"""Of the error rate: a candidate shown to exceed the baseline's by at most this passes."""
METHOD: Final = (
    "rates: each version's anytime-valid interval, requests of failing keys counted as fewer;"
    " latency: normal mixture with pooled variance, asymptotic"
)


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """One version."""

    version: str
    requests: int
    errors: int
    errors_by_code: dict[str, int]
    error_rate: float | None
    """None without requests."""
    p50_ms: float | None
    """Of answered requests, like all latencies; None without one."""
    p95_ms: float | None
    p99_ms: float | None
    mean_ms: float | None
    tokens: int
    checked: int
    """Answers that a rollout's check found good or bad."""
    bad: int
    """Of these, found bad."""
    bad_rate: float | None
    """None where none was checked."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The candidate's minus the baseline's, at level 1 - alpha."""

    estimate: float | None
    interval: tuple[float, float] | None
    """None with too few samples."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    baseline: Summary
    candidate: Summary
    error_rate: Difference
    bad_rate: Difference
    mean_latency_ms: Difference
    verdict: Outcome
    """`fail`: the candidate's error rate is shown to be higher; `pass`: to be higher by `margin` at
    most. Where answers of both were checked, the same is asked of bad answers, and alpha shared."""
    detail: str
    alpha: float
    margin: float
    method: str
    windows: int
    """That hold either version."""
    gateways: tuple[str, ...]
    policies: int
    """Policies under which these requests were routed."""


class _Sum:
    """One version's windows, added up."""

    def __init__(self, version: str) -> None:
        self.version = version
        self.count = NOTHING
        self.answers = NOTHING
        """Those that were checked."""
        self.codes: Counter[str] = Counter()
        self.tokens = 0
        self.seen_keys = 0
        self._merged = Merged()

    def add(self, window: VersionWindow) -> None:
        self.count += errors(window)
        self.answers += bad_answers(window)
        self.codes.update(window.errors)
        self.tokens += window.tokens
        self.seen_keys += window.units.seen
        if window.latency is not None:
            self._merged.add(window.latency)

    def latency(self) -> LatencySketch | None:
        return self._merged.sketch()

    @property
    def failed(self) -> tuple[Count, float]:
        """Requests, and how many of them say as much as one."""
        return self.count, self._weight(self.count)

    @property
    def answered_badly(self) -> tuple[Count, float]:
        """Checked answers, and how many of them say as much as one."""
        return self.answers, self._weight(self.answers)

    def _weight(self, counted: Count) -> float:
        """Windows from before keys were counted have no repeats to be known."""
        return counted.repeats if self.seen_keys else 1.0


def compare(windows: Iterable[WindowObserved], *, baseline: str, candidate: str) -> Comparison:
    """Both versions over these windows, in any order. Either may be in none of them."""
    sums = {version: _Sum(version) for version in (baseline, candidate)}
    count, gateways, policies = 0, set(), set()
    for window in windows:
        held = sums.keys() & window.versions.keys()
        for version in held:
            sums[version].add(window.versions[version])
        if held:
            count += 1
            gateways.add(window.gateway)
            policies.add(window.policy)
    of_baseline, of_candidate = sums[baseline], sums[candidate]
    are_checked = of_baseline.answers.samples and of_candidate.answers.samples
    alpha = ALPHA / 2.0 if are_checked else ALPHA
    rates = _rates(of_baseline.failed, of_candidate.failed, alpha=alpha)
    bad_rates = _rates(of_baseline.answered_badly, of_candidate.answered_badly, alpha=alpha)
    verdict, detail = _verdict("error rate", rates)
    if are_checked:
        verdict, detail = _both((verdict, detail), _verdict("rate of bad answers", bad_rates))
    if len(policies) > 1:
        detail += "; the split changed within this span, which can look like a difference"
    return Comparison(
        baseline=_summary(of_baseline),
        candidate=_summary(of_candidate),
        error_rate=rates,
        bad_rate=bad_rates,
        mean_latency_ms=_latencies(of_baseline, of_candidate),
        verdict=verdict,
        detail=detail,
        alpha=ALPHA,
        margin=MARGIN,
        method=METHOD,
        windows=count,
        gateways=tuple(sorted(gateways)),
        policies=len(policies),
    )


def _rates(
    baseline: tuple[Count, float], candidate: tuple[Count, float], *, alpha: float
) -> Difference:
    (before, weight_b), (after, weight_c) = baseline, candidate
    if not before.samples or not after.samples:
        return Difference(estimate=None, interval=None)
    low_b, high_b = rate_interval(before, weight=weight_b, alpha=alpha / 2.0)
    low_c, high_c = rate_interval(after, weight=weight_c, alpha=alpha / 2.0)
    return Difference(estimate=after.rate - before.rate, interval=(low_c - high_b, high_c - low_b))


def _latencies(baseline: _Sum, candidate: _Sum) -> Difference:
    before, after = baseline.latency(), candidate.latency()
    if before is None or after is None:
        return Difference(estimate=None, interval=None)
    first, second = moments(before), moments(after)
    return Difference(
        estimate=second.mean - first.mean, interval=difference(first, second, alpha=ALPHA)
    )


def _verdict(name: str, rates: Difference) -> tuple[Outcome, str]:
    if rates.interval is None:
        return "inconclusive", "a version has no requests in this span"
    low, high = rates.interval
    if low > 0.0:
        return "fail", f"the candidate's {name} is higher, by at least {low:.2%}"
    if high <= MARGIN:
        return "pass", f"the candidate's {name} exceeds the baseline's by at most {high:.2%}"
    return "inconclusive", f"the candidate's {name} may exceed the baseline's by {high:.2%}"


def _both(one: tuple[Outcome, str], other: tuple[Outcome, str]) -> tuple[Outcome, str]:
    """What two verdicts come to: the worse one counts."""
    outcomes: tuple[Outcome, ...] = ("fail", "inconclusive", "pass")
    return min(one[0], other[0], key=outcomes.index), f"{one[1]}; {other[1]}"


def _summary(of: _Sum) -> Summary:
    sketch = of.latency()
    samples = of.count.samples
    return Summary(
        version=of.version,
        requests=samples,
        errors=of.count.failures,
        errors_by_code=dict(sorted(of.codes.items())),
        error_rate=of.count.rate if samples else None,
        p50_ms=quantile(sketch, 0.50) if sketch else None,
        p95_ms=quantile(sketch, 0.95) if sketch else None,
        p99_ms=quantile(sketch, 0.99) if sketch else None,
        mean_ms=moments(sketch).mean if sketch else None,
        tokens=of.tokens,
        checked=of.answers.samples,
        bad=of.answers.failures,
        bad_rate=of.answers.rate if of.answers.samples else None,
    )

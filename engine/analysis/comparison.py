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

from engine.analysis.counts import NOTHING, errors, rate_interval
from engine.analysis.looking import Outcome
from engine.analysis.means import difference
from engine.analysis.sketches import Merged, moments, quantile
from events.catalogue.traffic import LatencySketch, VersionWindow, WindowObserved

ALPHA: Final = 0.05
MARGIN: Final = 0.02
"""Of the error rate: a candidate shown to exceed the baseline's by at most this passes."""
METHOD: Final = (
    "error rate: each version's anytime-valid interval, requests of failing keys counted as fewer;"
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


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The candidate's minus the baseline's, at level 1 - alpha."""

    estimate: float | None
    interval: tuple[float, float] | None
    """None with too few samples."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    baseline: Summary
    candidate: Summary
    error_rate: Difference
    mean_latency_ms: Difference
    verdict: Outcome
    """`fail`: the candidate's error rate is shown to be higher; `pass`: to be higher by `margin` at
    most."""
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
        self.codes: Counter[str] = Counter()
        self.tokens = 0
        self.seen_keys = 0
        self._merged = Merged()

    def add(self, window: VersionWindow) -> None:
        self.count += errors(window)
        self.codes.update(window.errors)
        self.tokens += window.tokens
        self.seen_keys += window.units.seen
        if window.latency is not None:
            self._merged.add(window.latency)

    def latency(self) -> LatencySketch | None:
        return self._merged.sketch()

    def rate_interval(self, alpha: float) -> tuple[float, float]:
        """Windows from before keys were counted have no repeats to be known."""
        weight = self.count.repeats if self.seen_keys else 1.0
        return rate_interval(self.count, weight=weight, alpha=alpha)


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
    rates = _rates(of_baseline, of_candidate)
    verdict, detail = _verdict(rates)
    if len(policies) > 1:
        detail += "; the split changed within this span, which can look like a difference"
    return Comparison(
        baseline=_summary(of_baseline),
        candidate=_summary(of_candidate),
        error_rate=rates,
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


def _rates(baseline: _Sum, candidate: _Sum) -> Difference:
    if not baseline.count.samples or not candidate.count.samples:
        return Difference(estimate=None, interval=None)
    low_b, high_b = baseline.rate_interval(ALPHA / 2.0)
    low_c, high_c = candidate.rate_interval(ALPHA / 2.0)
    return Difference(
        estimate=candidate.count.rate - baseline.count.rate,
        interval=(low_c - high_b, high_c - low_b),
    )


def _latencies(baseline: _Sum, candidate: _Sum) -> Difference:
    before, after = baseline.latency(), candidate.latency()
    if before is None or after is None:
        return Difference(estimate=None, interval=None)
    first, second = moments(before), moments(after)
    return Difference(
        estimate=second.mean - first.mean, interval=difference(first, second, alpha=ALPHA)
    )


def _verdict(rates: Difference) -> tuple[Outcome, str]:
    if rates.interval is None:
        return "inconclusive", "a version has no requests in this span"
    low, high = rates.interval
    if low > 0.0:
        return "fail", f"the candidate's error rate is higher, by at least {low:.2%}"
    if high <= MARGIN:
        return "pass", f"the candidate's error rate exceeds the baseline's by at most {high:.2%}"
    return "inconclusive", f"the candidate's error rate may exceed the baseline's by {high:.2%}"


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
    )

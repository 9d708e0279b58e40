"""Metrics of versions and shadows, read from the sums of windows when somebody scrapes.

Sums are those of whole seconds, so they agree with what is on the log; how many requests are under
way is as of now. Every sample has the labels tenant, endpoint and version. They are bounded by
`handlers.traffic.totals.TOTALS_MAX`, and counting costs a request nothing. May be scraped in any
thread: what is looped over is copied first, at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from handlers.traffic.totals import LATENCY_SECONDS, ShadowTotal, VersionTotal, Which
from handlers.traffic.windows import Windows

_LABELS: Final = ("tenant", "endpoint", "version")
_BOUNDS: Final = (*map(str, LATENCY_SECONDS), "+Inf")


class TrafficMetrics(Collector):
    """Register it once per process that is a gateway."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows

    def describe(self) -> Iterable[Metric]:
        return ()  # what there is depends on the traffic

    def collect(self) -> Iterator[Metric]:
        totals = self._windows.totals
        versions, shadows = totals.versions.copy(), totals.shadows.copy()
        yield _latencies(versions)
        yield self._in_flight(versions)
        yield _counter(
            "switchback_fallbacks",
            "Requests that came because the version chosen for them failed.",
            ((which, total.fallbacks) for which, total in versions.items()),
        )
        yield _counter(
            "switchback_units_left_out",
            "Requests whose keys were too many to be told apart.",
            ((which, total.units_left_out) for which, total in versions.items()),
        )
        yield from _of_checks(versions)
        yield from _of_shadows(shadows)

    def _in_flight(self, known: Iterable[Which]) -> Metric:
        counts: Counter[Which] = Counter(dict.fromkeys(known, 0))
        for entity, version, count in self._windows.in_flight():
            counts[entity.tenant, entity.id, version] += count
        family = GaugeMetricFamily(
            "switchback_inference_in_flight", "Inference requests under way.", labels=_LABELS
        )
        for which, count in counts.items():
            family.add_metric(which, count)
        return family


def _latencies(versions: Mapping[Which, VersionTotal]) -> Metric:
    family = HistogramMetricFamily(
        "switchback_inference_seconds",
        "Latency of answered inference requests, within 2 % at the bounds.",
        labels=_LABELS,
    )
    for which, total in versions.items():
        counts = accumulate(total.latencies.counts)
        family.add_metric(which, list(zip(_BOUNDS, counts, strict=True)), total.latencies.sum_s)
    return family


def _of_checks(versions: Mapping[Which, VersionTotal]) -> Iterator[Metric]:
    for name, counted, said in (
        ("switchback_answers_checked", "checked", "Answers that a check found good or bad."),
        ("switchback_answers_bad", "bad", "Answers that a check found bad."),
        ("switchback_checks_failed", "failed", "Answers of which a check said nothing."),
        ("switchback_checks_dropped", "dropped", "Answers for whose check there was no room."),
    ):
        counts = (
            (which, getattr(total.checks, counted))
            for which, total in versions.items()
            if total.checks is not None
        )
        yield _counter(name, said, counts)


def _of_shadows(shadows: Mapping[Which, ShadowTotal]) -> Iterator[Metric]:
    for name, said in (
        ("mirrored", "Copies sent to a shadow version."),
        ("dropped", "Copies not sent, because too many were under way."),
        ("compared", "Copies answered and compared."),
        ("agreed", "Copies answered as the request itself was."),
    ):
        counts = ((which, getattr(total, name)) for which, total in shadows.items())
        yield _counter(f"switchback_shadow_{name}", said, counts)
    yield _counter(
        "switchback_shadow_errors",
        "Copies that failed or could not be compared, by problem code.",
        (
            ((*which, code), count)
            for which, total in shadows.items()
            for code, count in total.errors.copy().items()
        ),
        labels=(*_LABELS, "code"),
    )


def _counter(
    name: str,
    documentation: str,
    counts: Iterable[tuple[tuple[str, ...], int]],
    *,
    labels: tuple[str, ...] = _LABELS,
) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=labels)
    for values, count in counts:
        family.add_metric(values, count)
    return family

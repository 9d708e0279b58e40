"""Metrics of upstreams, as this gateway's own clients see them. May be scraped in any thread.

Each sample has the labels tenant, model and version, of the versions on upstreams that were asked
here and that endpoints still need: there are no more series than policies name versions. A version
that is needed again begins at zero, as after a restart. A node's client of the same version, in
this process or another, is not counted: it only asks whether the upstream is there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.runtimes.upstream import State
from handlers.upstreams import Upstreams

_LABELS: Final = ("tenant", "model", "version")
_STATES: Final[Mapping[State, int]] = {"closed": 0, "half open": 1, "open": 2}


class UpstreamMetrics(Collector):
    """Register it once per process that is a gateway."""

    def __init__(self, upstreams: Upstreams) -> None:
        self._upstreams = upstreams

    def describe(self) -> Iterable[Metric]:
        return ()  # what there is depends on the traffic

    def collect(self) -> Iterator[Metric]:
        in_flight = GaugeMetricFamily(
            "switchback_upstream_in_flight", "Requests under way.", labels=_LABELS
        )
        calls = CounterMetricFamily(
            "switchback_upstream_calls", "Requests, with those that were not sent.", labels=_LABELS
        )
        attempts = CounterMetricFamily(
            "switchback_upstream_attempts", "What was sent for them, with repeats.", labels=_LABELS
        )
        failures = CounterMetricFamily(
            "switchback_upstream_failures", "Requests that failed.", labels=_LABELS
        )
        breaker = GaugeMetricFamily(
            "switchback_upstream_breaker",
            "The circuit breaker: 0 closed, 1 half open, 2 open.",
            labels=_LABELS,
        )
        for ref, seen in self._upstreams.statistics.items():
            labels = (ref.tenant, ref.model, ref.version)
            in_flight.add_metric(labels, seen.in_flight)
            calls.add_metric(labels, seen.calls)
            attempts.add_metric(labels, seen.attempts)
            failures.add_metric(labels, seen.failures)
            breaker.add_metric(labels, _STATES[seen.breaker])
        yield from (in_flight, calls, attempts, failures, breaker)

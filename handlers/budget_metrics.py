"""Metrics of budgets, by key. May be scraped in any thread: what is looped over is copied first.

Keys that never had a budget are not told of, so that there are no more series than administrators
have made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from handlers.spending import Accounting

_LABELS: Final = ("tenant", "key")


class BudgetMetrics(Collector):
    """Register it once per process that is a gateway."""

    def __init__(self, accounting: Accounting) -> None:
        self._accounting = accounting

    def describe(self) -> Iterable[Metric]:
        return ()  # what there is depends on the traffic

    def collect(self) -> Iterator[Metric]:
        settled = CounterMetricFamily(
            "switchback_budget_tokens",
            "Tokens settled here, of keys with a budget.",
            labels=_LABELS,
        )
        refusals = CounterMetricFamily(
            "switchback_budget_refusals",
            "Requests refused here because they are more than is left of their key's budget.",
            labels=_LABELS,
        )
        for key, total in self._accounting.totals.copy().items():
            settled.add_metric(key, total.tokens)
            refusals.add_metric(key, total.refusals)
        reserved = GaugeMetricFamily(
            "switchback_budget_reserved_tokens",
            "Tokens that requests under way here may take, of keys with a budget.",
            labels=_LABELS,
        )
        for key, tokens in self._accounting.ledger.reserved().items():
            reserved.add_metric(key, tokens)
        yield from (settled, refusals, reserved)

"""Metrics of this process's schedulers, for whoever scrapes them.

`refresh` asks them, in bounded time; `collect` tells what they said then, in any thread. Each
sample has the labels tenant, model and version, of the versions that are loaded now: a version that
is loaded again begins at zero, as after a restart. One that does not answer is left out, and
counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from engine.batching import Latency
from handlers.batching import BatchingReply, Told, VersionBatching

_Rows: TypeAlias = Sequence[tuple[str, str, str]]
"""Metric, member of the statistics, what is said of it."""

_LABELS: Final = ("tenant", "model", "version")
_GAUGES: Final[_Rows] = (
    ("num_requests_running", "num_requests_running", "Requests in the batch."),
    ("num_requests_waiting", "num_requests_waiting", "Requests that wait for a place in it."),
    ("kv_cache_usage", "kv_cache_usage", "Share of the blocks of keys and values in use, 0 to 1."),
    ("kv_bytes_used", "kv_bytes_used", "Bytes of those blocks."),
    ("kv_bytes_max", "kv_bytes_total", "Bytes of all blocks."),
    ("batch_size_max", "batch_size_max", "The most requests that a step ever had."),
    ("batch_max", "batch_max", "The most requests that a step may have."),
)
_COUNTERS: Final[_Rows] = (
    ("num_preemptions", "num_preemptions", "Requests that lost their blocks, and began again."),
    ("prefix_cache_queries", "prefix_cache_queries", "Tokens of prompts that were admitted."),
    ("prefix_cache_hits", "prefix_cache_hits", "Of those, tokens that were found computed."),
    ("prompt_tokens", "prompt_tokens", "Tokens of prompts whose answers have begun."),
    ("generation_tokens", "generation_tokens", "Tokens of answers."),
    ("requests_refused", "requests_refused", "Requests that were not taken in."),
    ("executor_failures", "executor_failures", "Executions that failed, retried or not."),
    ("batching_steps", "steps", "Batches that were computed."),
    ("batching_step_requests", "batch_size_sum", "Requests in those batches."),
    ("batching_step_tokens", "step_tokens", "Tokens in those batches."),
)
_SUMMARIES: Final[_Rows] = (
    ("time_to_first_token", "time_to_first_token", "From arrival to the first token."),
    ("time_per_output_token", "time_per_output_token", "Mean between two tokens of a request."),
    ("queue", "request_queue_time", "From arrival to a place in the batch."),
    ("request", "e2e_request_latency", "From arrival to the end."),
)


class BatchingMetrics(Collector):
    """Register it once per process that has a node."""

    def __init__(self, node: Told | None) -> None:
        """Without a node there is nothing to tell."""
        self._node = node
        self._told = BatchingReply()
        self._unanswered = 0
        self._asking: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Ask every version. Whoever asks meanwhile gets the same answers."""
        if self._node is None:
            return
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(self._node), name="statistics")
        await asyncio.shield(self._asking)

    def describe(self) -> Iterable[Metric]:
        return ()  # what there is depends on what is loaded

    def collect(self) -> Iterator[Metric]:
        told = self._told.versions
        yield from (_family(GaugeMetricFamily, row, told) for row in _GAUGES)
        yield from (_family(CounterMetricFamily, row, told) for row in _COUNTERS)
        yield from (_summary(row, told) for row in _SUMMARIES)
        yield _endings(told)
        yield CounterMetricFamily(
            "switchback_batching_unanswered",
            "Times that a version did not tell its statistics when it was asked.",
            self._unanswered,
        )

    async def _ask(self, node: Told) -> None:
        self._told = await node.batching()
        self._unanswered += len(self._told.unanswered)


def _family(
    kind: Callable[..., GaugeMetricFamily | CounterMetricFamily],
    row: tuple[str, str, str],
    told: Iterable[VersionBatching],
) -> Metric:
    name, member, said = row
    family = kind(f"switchback_{name}", said, labels=_LABELS)
    for each in told:
        family.add_metric(_labels(each), getattr(each.statistics, member))
    return family


def _summary(row: tuple[str, str, str], told: Iterable[VersionBatching]) -> Metric:
    """Quantiles of the last one to two minutes; count and sum since the start."""
    name, member, said = row
    family = SummaryMetricFamily(f"switchback_batching_{name}_seconds", said, labels=_LABELS)
    for each in told:
        latency: Latency = getattr(each.statistics, member)
        labels = _labels(each)
        family.add_metric(labels, latency.count, latency.sum_s)
        for quantile, value_s in (
            ("0.5", latency.p50_s),
            ("0.95", latency.p95_s),
            ("0.99", latency.p99_s),
        ):
            named = dict(zip(_LABELS, labels, strict=True)) | {"quantile": quantile}
            family.add_sample(family.name, named, float("nan") if value_s is None else value_s)
    return family


def _endings(told: Iterable[VersionBatching]) -> Metric:
    family = CounterMetricFamily(
        "switchback_requests_ended", "Requests that ended, by reason.", labels=(*_LABELS, "reason")
    )
    for each in told:
        for reason, count in each.statistics.requests_ended.items():
            family.add_metric((*_labels(each), reason), count)
    return family


def _labels(each: VersionBatching) -> tuple[str, str, str]:
    ref = each.version
    return ref.tenant, ref.model, ref.version

"""What a scheduler has done. Names are those that users of vLLM know, where it has them.

Counts are since it was made, so that they only grow. Percentiles are of the last one to two
minutes, and rates of the last minute: what happens now is not hidden by what was.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec
from ddsketch import DDSketch

from engine.batching.generation import Generation
from engine.batching.rates import Rates
from engine.batching.requests import Ending

RELATIVE_ACCURACY: Final = 0.01
"""Of percentiles."""
TURN_SECONDS: Final = 60.0
"""After so long a sketch is kept for as long again, and another one begun."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of requests, in seconds."""

    count: int
    """Since the scheduler was made, as the sum."""
    sum_s: float
    p50_s: float | None
    """Of the last one to two minutes; None if there were none."""
    p95_s: float | None
    p99_s: float | None


class Statistics(msgspec.Struct, frozen=True, kw_only=True):
    """A scheduler at one moment. Counts are since it was made."""

    num_requests_running: int
    num_requests_waiting: int
    """Preempted ones among them."""
    kv_cache_usage: float
    """Share of the blocks that requests refer to, 0 to 1."""
    kv_blocks_total: int
    kv_blocks_used: int
    kv_bytes_total: int
    kv_bytes_used: int
    prefix_cache_queries: int
    """Tokens of prompts that were admitted."""
    prefix_cache_hits: int
    """Of those, tokens that were found computed."""
    prefix_cache_hit_rate: float
    """Hits of queries, 0 to 1; 0 before the first."""
    num_preemptions: int
    prompt_tokens: int
    """Of requests that have begun to answer."""
    generation_tokens: int
    requests_ended: Mapping[Ending, int]
    requests_refused: int
    requests_per_s: float
    """That ended, for whatever reason, see `engine.batching.rates`."""
    tokens_per_s: float
    """That were generated, also for requests that have not ended yet."""
    executor_failures: int
    """Executions that failed, whether or not a retry helped."""
    steps: int
    """Those that computed something."""
    step_tokens: int
    """Rows of all steps: more than prompts and answers by what was computed again."""
    batch_size_sum: int
    """Requests of all steps."""
    batch_size_max: int
    """The most requests that a step ever had."""
    batch_max: int
    """The limit of that."""
    batch_utilisation: float
    """Mean share of the places of a batch that were taken; 0 before the first step."""
    time_to_first_token: Latency
    time_per_output_token: Latency
    """Of requests with two tokens or more, the mean between two of them."""
    request_queue_time: Latency
    e2e_request_latency: Latency


class Timings:
    """One latency in the making: counted since the start, sketched by the minute."""

    __slots__ = ("_before", "_sketch", "_turn_s", "count", "sum_s")

    def __init__(self, now_s: float) -> None:
        self.count = 0
        self.sum_s = 0.0
        self._sketch = DDSketch(RELATIVE_ACCURACY)
        self._before = DDSketch(RELATIVE_ACCURACY)
        self._turn_s = now_s + TURN_SECONDS

    def add(self, seconds: float, now_s: float) -> None:
        if now_s >= self._turn_s:
            self._turn(now_s)
        self.count += 1
        self.sum_s += seconds
        self._sketch.add(seconds)

    def latency(self, now_s: float) -> Latency:
        if now_s >= self._turn_s:
            self._turn(now_s)
        recent = DDSketch(RELATIVE_ACCURACY)
        recent.merge(self._before)
        recent.merge(self._sketch)
        return Latency(
            count=self.count,
            sum_s=self.sum_s,
            p50_s=recent.get_quantile_value(0.50),
            p95_s=recent.get_quantile_value(0.95),
            p99_s=recent.get_quantile_value(0.99),
        )

    def _turn(self, now_s: float) -> None:
        late = now_s >= self._turn_s + TURN_SECONDS
        self._before = DDSketch(RELATIVE_ACCURACY) if late else self._sketch
        self._sketch = DDSketch(RELATIVE_ACCURACY)
        self._turn_s = now_s + TURN_SECONDS if late else self._turn_s + TURN_SECONDS


class Tally:
    """Counts and latencies in the making. Nothing here is touched for each token."""

    __slots__ = (
        "batch_size_max",
        "batch_size_sum",
        "e2e",
        "ended",
        "first",
        "generation_tokens",
        "output",
        "prompt_tokens",
        "queue",
        "rates",
        "refused",
        "step_tokens",
        "steps",
    )

    def __init__(self, now_s: float) -> None:
        self.steps = 0
        self.step_tokens = 0
        self.batch_size_sum = 0
        self.batch_size_max = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.refused = 0
        self.ended: Counter[Ending] = Counter()
        self.rates = Rates()
        self.first = Timings(now_s)
        self.output = Timings(now_s)
        self.queue = Timings(now_s)
        self.e2e = Timings(now_s)

    def arrived(self, now_s: float) -> None:
        self.rates.arrived(now_s)

    def stepped(self, *, requests: int, tokens: int) -> None:
        self.steps += 1
        self.step_tokens += tokens
        self.batch_size_sum += requests
        self.batch_size_max = max(self.batch_size_max, requests)

    def drew(self, tokens: int, now_s: float) -> None:
        """Of one step, for all its requests together."""
        self.generation_tokens += tokens
        self.rates.drew(tokens, now_s)

    def began(self, generation: Generation, first_s: float) -> None:
        """To answer."""
        self.prompt_tokens += generation.prompt_tokens
        self.first.add(first_s - generation.arrived_s, first_s)

    def end(self, generation: Generation, ending: Ending, now_s: float) -> None:
        self.ended[ending] += 1
        self.rates.ended(now_s)
        self.e2e.add(now_s - generation.arrived_s, now_s)
        if generation.admitted_s is not None:
            self.queue.add(generation.admitted_s - generation.arrived_s, now_s)
        if generation.first_s is not None and generation.answered > 1:
            output_s = (now_s - generation.first_s) / (generation.answered - 1)
            self.output.add(output_s, now_s)

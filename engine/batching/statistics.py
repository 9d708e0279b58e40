"""What a scheduler has done. Names are those that users of vLLM know, where it has them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import msgspec
from ddsketch import DDSketch

from engine.batching.generation import Generation
from engine.batching.requests import Ending

RELATIVE_ACCURACY: Final = 0.01
"""Of latencies."""


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """Of requests that have ended, in seconds; all 0 of none."""

    count: int
    p50_s: float
    p95_s: float
    p99_s: float
    sum_s: float


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
    num_preemptions: int
    prompt_tokens: int
    """Of requests that have begun to answer."""
    generation_tokens: int
    requests_ended: Mapping[Ending, int]
    requests_refused: int
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
    time_to_first_token: Latency
    time_per_output_token: Latency
    """Of requests with two tokens or more, the mean between two of them."""
    request_queue_time: Latency
    e2e_request_latency: Latency

    @property
    def batch_utilisation(self) -> float:
        """Mean share of the places of a batch that were taken; 0 before the first step."""
        return self.batch_size_sum / (self.steps * self.batch_max) if self.steps else 0.0

    @property
    def prefix_cache_hit_rate(self) -> float:
        """Of prompt tokens; 0 before the first."""
        queries = self.prefix_cache_queries
        return self.prefix_cache_hits / queries if queries else 0.0


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
        "refused",
        "step_tokens",
        "steps",
    )

    def __init__(self) -> None:
        self.steps = 0
        self.step_tokens = 0
        self.batch_size_sum = 0
        self.batch_size_max = 0
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.refused = 0
        self.ended: Counter[Ending] = Counter()
        self.first = DDSketch(RELATIVE_ACCURACY)
        self.output = DDSketch(RELATIVE_ACCURACY)
        self.queue = DDSketch(RELATIVE_ACCURACY)
        self.e2e = DDSketch(RELATIVE_ACCURACY)

    def stepped(self, *, requests: int, tokens: int) -> None:
        self.steps += 1
        self.step_tokens += tokens
        self.batch_size_sum += requests
        self.batch_size_max = max(self.batch_size_max, requests)

    def drew(self, tokens: int) -> None:
        self.generation_tokens += tokens

    def began(self, generation: Generation, first_s: float) -> None:
        """To answer."""
        self.prompt_tokens += generation.prompt_tokens
        self.first.add(first_s - generation.arrived_s)

    def end(self, generation: Generation, ending: Ending, now_s: float) -> None:
        self.ended[ending] += 1
        self.e2e.add(now_s - generation.arrived_s)
        if generation.admitted_s is not None:
            self.queue.add(generation.admitted_s - generation.arrived_s)
        if generation.first_s is not None and generation.answered > 1:
            self.output.add((now_s - generation.first_s) / (generation.answered - 1))


def latency(sketch: DDSketch) -> Latency:
    return Latency(
        count=int(sketch.count),
        p50_s=sketch.get_quantile_value(0.50) or 0.0,
        p95_s=sketch.get_quantile_value(0.95) or 0.0,
        p99_s=sketch.get_quantile_value(0.99) or 0.0,
        sum_s=float(sketch.sum),
    )

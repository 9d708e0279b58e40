"""Line `scheduling`: what the scheduler costs, and how full its batches are, without a model."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from itertools import count
from time import monotonic, thread_time
from typing import Final

import msgspec

from engine.batching import Batch, Drawn, Limits, Priority, Request, Scheduler
from switchback.bench.figures import Goal, Row, row
from switchback.bench.sizes import Sizes
from switchback.bench.stage import Clients

NAME: Final = "scheduling"
COST_US: Final = Goal("at most", 2.0)
SATURATED: Final = Goal("at least", 97.0)
PRESSED: Final = Goal("at least", 92.0)
RUNNING: Final = (64, 256, 1024)
BLOCK_TOKENS: Final = 16
PROMPT_TOKENS: Final = 64
ANSWER_TOKENS: Final = 64
SLOTS: Final = 64
_PRESSED: Final = "memory for a third"
_WORDS: Final = [f" word{i}".encode() for i in range(1000)]


class Instant:
    """An executor that takes no time to speak of: what is left is the scheduler's."""

    block_tokens = BLOCK_TOKENS
    block_bytes = 1
    context_tokens = 4096
    eos = 0

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.seconds = 0.0

    def execute(self, batch: Batch) -> Drawn:
        started = thread_time()
        drawn = Drawn([1 + batch.starts[index] % 999 for index in batch.sampled])
        self.seconds += thread_time() - started
        return drawn


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """How well a workload was packed."""

    steps: int
    steps_min: int
    """Of a scheduler that wastes neither a place nor a block, and knows the future."""
    preemptions: int
    tokens: int
    """Rows of all steps."""
    tokens_min: int
    """Of a scheduler that computes nothing twice."""

    @property
    def percent(self) -> float:
        return 100 * self.steps_min / self.steps

    @property
    def again_percent(self) -> float:
        """Tokens that were computed again after a preemption, of those that had to be."""
        return 100 * (self.tokens / self.tokens_min - 1)


async def measure(clients: Clients, sizes: Sizes) -> Sequence[Row]:
    return await clients.call(
        schedule, sizes.rounds, sizes.scheduled_steps, sizes.scheduled_requests
    )


async def schedule(rounds: int, steps: int, requests: int) -> Sequence[Row]:
    costs = {running: [cost_us(running, steps) for _ in range(rounds)] for running in RUNNING}
    saturated = [batch_use(requests, share=1.0).percent for _ in range(rounds)]
    pressed = [batch_use(requests, share=1 / 3) for _ in range(rounds)]
    return (
        *(
            row(NAME, f"per request and step, {running} running", "us", figures, goal=COST_US)
            for running, figures in costs.items()
        ),
        row(NAME, "batch use, saturated", "%", saturated, goal=SATURATED),
        row(NAME, f"{_PRESSED}: batch use", "%", [use.percent for use in pressed], goal=PRESSED),
        row(NAME, f"{_PRESSED}: computed again", "%", [use.again_percent for use in pressed]),
    )


def cost_us(running: int, steps: int) -> float:
    """Of a request in a step that goes on generating: everything but the executor.

    Three priorities, stop strings that tokens may begin, deadlines and text are on; every tenth
    step a request is cancelled, another comes, and statistics are read.
    """
    blocks = running * (-(-(8 + 4 * steps) // BLOCK_TOKENS) + 1)
    executor = Instant(blocks)
    limits = Limits(
        batch_max=running, step_tokens_max=max(2048, 2 * running), waiting_max=2 * running
    )
    scheduler = Scheduler(executor, _word, limits=limits, clock=monotonic)
    numbers = [scheduler.submit(_lasting(i, 4 * steps)) for i in range(running)]
    while scheduler.statistics().num_requests_running < running:
        scheduler.step()
    timings: list[float] = []
    gc.collect()
    for index in range(steps):
        before, started = executor.seconds, thread_time()
        if index % 10 == 9:
            scheduler.cancel(numbers[index % running])
            numbers[index % running] = scheduler.submit(_lasting(index, 4 * steps))
            scheduler.statistics()
        scheduler.step()
        timings.append(thread_time() - started - (executor.seconds - before))
    return sum(timings) / steps / running * 1e6


def batch_use(requests: int, *, share: float) -> Use:
    """Of requests that all wait from the beginning; `share` of the memory that places could use."""
    longest = -(-(PROMPT_TOKENS + ANSWER_TOKENS - 1) // BLOCK_TOKENS)
    blocks = int(SLOTS * longest * share)
    executor = Instant(blocks)
    limits = Limits(batch_max=SLOTS, step_tokens_max=2048, waiting_max=requests)
    ticks = count()
    scheduler = Scheduler(executor, _word, limits=limits, clock=lambda: float(next(ticks)))
    for index in range(requests):
        prompt = [1 + (index * 7 + position) % 999 for position in range(PROMPT_TOKENS)]
        prompt[0] = 1 + index
        scheduler.submit(Request(prompt=prompt, max_tokens=ANSWER_TOKENS))
    while scheduler.busy:
        scheduler.step()
    held = sum(-(-(PROMPT_TOKENS + answered) // BLOCK_TOKENS) for answered in range(ANSWER_TOKENS))
    steps_min = max(requests * ANSWER_TOKENS / SLOTS, requests * held / blocks)
    statistics = scheduler.statistics()
    return Use(
        steps=statistics.steps,
        steps_min=int(steps_min),
        preemptions=statistics.num_preemptions,
        tokens=statistics.step_tokens,
        tokens_min=requests * (PROMPT_TOKENS + ANSWER_TOKENS - 1),
    )


def _lasting(index: int, max_tokens: int) -> Request:
    return Request(
        prompt=[1 + (index + position) % 999 for position in range(8)],
        max_tokens=max_tokens,
        tenant=f"tenant-{index % 3}",
        priority=Priority(index % 3),
        stop=("\n\n", " Question:"),
        deadline_s=monotonic() + 3600,
    )


def _word(token: int) -> bytes:
    return _WORDS[token]

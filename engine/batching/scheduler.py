"""The scheduler: requests in, one batch a step, chunks of answers out.

    scheduler = Scheduler(executor, token_bytes, limits=Limits(), clock=monotonic)
    number = scheduler.submit(Request(prompt=tokens, max_tokens=64))
    while scheduler.busy:
        for chunk in scheduler.step():
            ...

Guarantees, between any two calls:

- A request that was taken in ends once, with one last chunk, unless its caller cancels it.
- `free + used == total` blocks; an ended request holds none.
- A step that finds a request to serve computes something, so each request is served in the end.
- No batch exceeds `batch_max` requests or `step_tokens_max` tokens.
- Better ranks go first: no request is passed but by those of a better class that came less than
  `ageing_seconds` for each class later, and by `passes_max` others while it does not fit.
- What one request does to the executor, it does to itself alone.

Not guaranteed: that a step is short. It lasts as long as the executor, and is not to be called from
two threads; `cancel` and `submit` may be called while an executor's `execute` is under way.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from engine.batching.answers import Answers
from engine.batching.blocks import BlockPool
from engine.batching.composing import Composed, Composer
from engine.batching.deadlines import Deadlines
from engine.batching.executor import Drawn, Executor, ExecutorLost, TokenBytes
from engine.batching.generation import Generation, State
from engine.batching.limits import Limits
from engine.batching.memory import Memory
from engine.batching.recovery import Recovery
from engine.batching.requests import (
    Chunk,
    Closed,
    ContextExceeded,
    Ending,
    NeverFits,
    QueueFull,
    Refused,
    Request,
    check,
)
from engine.batching.statistics import Statistics, Tally
from engine.batching.text import Vocabulary

_log = structlog.get_logger(__name__)


class Scheduler:
    """Of one executor."""

    lost: ExecutorLost | None
    """Set once nothing can be computed any more: all requests have failed, none is taken in."""

    def __init__(
        self,
        executor: Executor,
        token_bytes: TokenBytes,
        *,
        limits: Limits,
        clock: Callable[[], float],
    ) -> None:
        """`clock` gives seconds, and never goes back."""
        self.lost = None
        self._limits = limits
        self._clock = clock
        self._context_tokens = executor.context_tokens
        pool = BlockPool(_blocks_within(limits, executor))
        self._memory = Memory(
            pool, block_tokens=executor.block_tokens, block_bytes=executor.block_bytes
        )
        self._composer = Composer(self._memory, limits)
        self._recovery = Recovery(executor, retries_max=limits.retries_max)
        self._vocabulary = Vocabulary(token_bytes)
        self._generations: dict[int, Generation] = {}
        self._deadlines = Deadlines()
        self._tally = Tally(clock())
        self._answers = Answers(
            self._generations,
            composer=self._composer,
            memory=self._memory,
            tally=self._tally,
            eos=executor.eos,
            clock=clock,
        )
        self._submitted = 0

    @property
    def busy(self) -> bool:
        """Whether any request is waiting or running."""
        return bool(self._generations)

    def submit(self, request: Request) -> int:
        """Take a request in; its number stands in its chunks. Raises Refused, at once and whole."""
        try:
            self._check(request)
        except Refused:
            self._tally.refused += 1
            raise
        self._submitted += 1
        now_s = self._clock()
        generation = Generation(
            self._submitted,
            request,
            now_s=now_s,
            ageing_seconds=self._limits.ageing_seconds,
            vocabulary=self._vocabulary,
        )
        self._memory.enter(generation)
        self._generations[generation.number] = generation
        self._composer.waiting.enter(generation)
        self._tally.arrived(now_s)
        if request.deadline_s is not None:
            self._deadlines.add(request.deadline_s, generation.number, self._generations)
        return generation.number

    def cancel(self, number: int) -> bool:
        """End a request without a further chunk; its blocks are free when this returns.

        False if it has ended already. Legal in every state, also while its step is computed.
        """
        generation = self._generations.get(number)
        if generation is None:
            return False
        self._answers.drop(generation, "cancelled")
        return True

    def abort(self) -> list[Chunk]:
        """End all requests, with a last chunk each."""
        return self._end_all("aborted")

    def step(self) -> list[Chunk]:
        """Compute one batch. Returns what came of it, and of deadlines that have passed."""
        now_s = self._clock()
        chunks = [
            self._answers.last(self._generations[number], "deadline")
            for number in self._deadlines.passed(now_s)
            if number in self._generations
        ]
        composed = self._composer.compose(now_s)
        if composed.generations:
            try:
                self._compute(composed, chunks)
            except ExecutorLost as error:
                _log.error("executor_lost", requests=len(self._generations), detail=error.detail)
                self.lost = error
                chunks += self._end_all("failed", error.detail)
        return chunks

    def statistics(self) -> Statistics:
        pool, tally = self._memory.pool, self._tally
        now_s = self._clock()
        requests_per_s, tokens_per_s = tally.rates.per_second(now_s)
        queries, hits = self._memory.prefix_queries, self._memory.prefix_hits
        places = tally.steps * self._limits.batch_max
        return Statistics(
            num_requests_running=len(self._composer.running),
            num_requests_waiting=len(self._composer.waiting),
            kv_cache_usage=pool.used / pool.total,
            kv_blocks_total=pool.total,
            kv_blocks_used=pool.used,
            kv_bytes_total=pool.total * self._memory.block_bytes,
            kv_bytes_used=pool.used * self._memory.block_bytes,
            prefix_cache_queries=queries,
            prefix_cache_hits=hits,
            prefix_cache_hit_rate=hits / queries if queries else 0.0,
            num_preemptions=self._composer.preemptions,
            prompt_tokens=tally.prompt_tokens,
            generation_tokens=tally.generation_tokens,
            requests_ended=dict(tally.ended),
            requests_refused=tally.refused,
            requests_per_s=requests_per_s,
            tokens_per_s=tokens_per_s,
            executor_failures=self._recovery.failures,
            steps=tally.steps,
            step_tokens=tally.step_tokens,
            batch_size_sum=tally.batch_size_sum,
            batch_size_max=tally.batch_size_max,
            batch_max=self._limits.batch_max,
            batch_utilisation=tally.batch_size_sum / places if places else 0.0,
            time_to_first_token=tally.first.latency(now_s),
            time_per_output_token=tally.output.latency(now_s),
            request_queue_time=tally.queue.latency(now_s),
            e2e_request_latency=tally.e2e.latency(now_s),
        )

    def _check(self, request: Request) -> None:
        if self.lost is not None:
            raise Closed
        check(request)
        tokens = len(request.prompt) + request.max_tokens
        if tokens > self._context_tokens:
            raise ContextExceeded(tokens, self._context_tokens)
        blocks = self._memory.blocks_for(tokens - 1)  # the last token is followed by nothing
        if blocks > self._memory.pool.total:
            raise NeverFits(blocks, self._memory.pool.total)
        waiting = self._composer.waiting
        if len(waiting) - waiting.preempted >= self._limits.waiting_max:
            raise QueueFull(self._limits.waiting_max)

    def _end_all(self, ending: Ending, detail: str | None = None) -> list[Chunk]:
        left = list(self._generations.values())
        return [self._answers.last(generation, ending, detail) for generation in left]

    def _compute(self, composed: Composed, chunks: list[Chunk]) -> None:
        batch = composed.batch
        self._tally.stepped(requests=len(batch.requests), tokens=len(batch.tokens))
        for part in self._recovery.execute(batch):
            if isinstance(part.drawn, Drawn):
                self._answers.settle(composed, part, part.drawn, chunks)
            elif (generation := composed.generations[part.begin]).state is State.RUNNING:
                chunks.append(self._answers.last(generation, "failed", part.drawn.detail))


def _blocks_within(limits: Limits, executor: Executor) -> int:
    if limits.kv_bytes_max is None:
        return executor.blocks
    return min(executor.blocks, limits.kv_bytes_max // executor.block_bytes)

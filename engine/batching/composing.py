"""What the next step computes: running requests first, then waiting ones, within every limit.

There are no phases. Each request has tokens, of which some are computed; a step hands out its
budget until they meet. That one rule covers prompts, prompts in pieces, answers, shared prefixes
and requests that start again.

Guarantees:

- Every running request is in every batch: one token each is set aside before anything else.
- Nobody is admitted in a step that preempted. The one of the worst rank is preempted, and waits
  where its rank puts it; so the best one always goes on, and `Memory` holds any request alone.
- A request that does not fit is passed at most `passes_max` times, then all behind wait for it.
  One that would be one long prompt too many is passed without counting: it loses nothing by it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from engine.batching.executor import Batch
from engine.batching.generation import Generation, Rank, State
from engine.batching.limits import Limits
from engine.batching.memory import Memory
from engine.batching.waiting import Waiting

LOOK_MAX: Final = 256
"""Waiting requests that are looked at in a step, beyond those that there are places for."""


class Composed(msgspec.Struct, frozen=True):
    """A batch, and whose it is."""

    batch: Batch
    generations: list[Generation]
    """As in `batch.requests`."""
    filling: list[int]
    """Indices of those that may fill a block in this step."""


class _Rows:
    """A batch in the making. Most requests bring one token; only the others are noted here."""

    __slots__ = ("filling", "partial", "pieces", "starts", "tokens")

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.starts: list[int] = []
        self.filling: list[int] = []
        self.pieces: dict[int, int] = {}
        """Index -> tokens, of requests that bring more than one, or not their last."""
        self.partial: set[int] = set()
        """Indices of requests that do not bring their last token yet."""

    def add_piece(self, generation: Generation, count: int) -> None:
        """The next `count` tokens of the request; from here on they count as computed."""
        index = len(self.starts)
        start = generation.computed
        generation.computed = end = start + count
        self.tokens += generation.tokens[start:end]
        self.starts.append(start)
        self.filling.append(index)
        self.pieces[index] = count
        if end < len(generation.tokens):
            self.partial.add(index)

    def composed(self, generations: list[Generation]) -> Composed:
        """`generations` in the order in which they were added."""
        counts = [1] * len(generations)
        for index, count in self.pieces.items():
            counts[index] = count
        answering = generations
        sampled = list(range(len(generations)))
        if self.partial:
            sampled = [index for index in sampled if index not in self.partial]
            answering = [generations[index] for index in sampled]
        batch = Batch(
            [generation.number for generation in generations],
            self.tokens,
            self.starts,
            counts,
            [generation.table for generation in generations],
            sampled,
            [generation.sampling for generation in answering],
        )
        return Composed(batch, generations, self.filling)


class Composer:
    """Who runs and who waits."""

    def __init__(self, memory: Memory, limits: Limits) -> None:
        self.waiting = Waiting()
        self.running: list[Generation] = []
        """In the order of admission, which is that of a batch."""
        self.growing: list[Generation] = []
        """Those whose next token has no room yet."""
        self.preemptions = 0
        self._memory = memory
        self._limits = limits
        self._watermark_blocks = -int(-limits.watermark * memory.pool.total // 1)

    def compose(self, now_s: float) -> Composed:
        """The next batch; empty only if nobody runs or waits."""
        admitting = self._grow()
        rows = _Rows()
        spare, long = self._continue(rows)
        if admitting and self.waiting:
            self._admit(rows, spare, long, now_s)
        return rows.composed(list(self.running))

    def drop(self, generation: Generation) -> None:
        """The request has ended: forget it, and free what it has."""
        if generation.state is State.RUNNING:
            self.running.remove(generation)
        elif generation.state is State.WAITING:
            self.waiting.leave(generation)
        self._memory.release(generation)
        generation.state = State.ENDED

    def _grow(self) -> bool:
        """Make room for the next tokens; False if that took a preemption."""
        growing, self.growing = self.growing, []
        before = self.preemptions
        victims: list[Generation] = []  # best rank first, once there are any
        for generation in growing:
            while _lacks_room(generation) and not self._memory.grow(generation):
                victims = victims or sorted(self.running, key=_rank)
                self._preempt(victims.pop())
        return self.preemptions == before

    def _preempt(self, generation: Generation) -> None:
        self.preemptions += 1
        self.running.remove(generation)
        self._memory.release(generation)
        generation.state = State.WAITING
        generation.preemptions += 1
        self.waiting.enter(generation)

    def _continue(self, rows: _Rows) -> tuple[int, int]:
        """Everybody who runs. Returns the tokens left, and how many prompts go on.

        The loop is flat on purpose: it is half of what a step costs for each running request.
        """
        spare = self._limits.step_tokens_max - len(self.running)
        long = 0
        tokens, starts, filling = rows.tokens, rows.starts, rows.filling
        for index, generation in enumerate(self.running):
            start = generation.computed
            held = generation.tokens
            if len(held) - start > 1:
                count = min(len(held) - start, self._limits.prefill_tokens_max, 1 + spare)
                spare, long = spare - (count - 1), long + 1
                rows.add_piece(generation, count)
                continue
            tokens.append(held[start])
            starts.append(start)
            generation.computed = start + 1
            if start + 1 == generation.room:
                filling.append(index)
        return spare, long

    def _admit(self, rows: _Rows, spare: int, long: int, now_s: float) -> None:
        """Those who wait, best rank first, as long as there are places, tokens and blocks."""
        places = self._limits.batch_max - len(self.running)
        unfit: list[Generation] = []
        for generation in self.waiting.first(places + LOOK_MAX) if places else ():
            if not (spare and places) or self._nobody_may_pass(unfit):
                return
            if long >= self._limits.long_prefills_max and self._is_long(generation):
                continue
            if not self._memory.admit(generation, left_min=self._left_min()):
                unfit.append(generation)
                continue
            self._begin(generation, now_s)
            for other in unfit:
                other.passes += 1
            wanted = len(generation.tokens) - generation.computed
            count = min(wanted, self._limits.prefill_tokens_max, spare)
            rows.add_piece(generation, count)
            places, spare, long = places - 1, spare - count, long + (count < wanted)

    def _nobody_may_pass(self, unfit: list[Generation]) -> bool:
        return len(unfit) > self._limits.skip_ahead_max or any(
            generation.passes >= self._limits.passes_max for generation in unfit
        )

    def _left_min(self) -> int:
        """Blocks an admission leaves free: one to grow for everybody who runs, or the watermark.

        None if nobody runs. Measured with memory for a third of what could run: 12 % of the tokens
        are computed again, where it is 33 % if only a watermark of 1 % is left.
        """
        return max(self._watermark_blocks, len(self.running)) if self.running else 0

    def _is_long(self, generation: Generation) -> bool:
        return self._memory.outlasts(generation, self._limits.prefill_tokens_max)

    def _begin(self, generation: Generation, now_s: float) -> None:
        self.waiting.leave(generation)
        generation.state = State.RUNNING
        if generation.admitted_s is None:
            generation.admitted_s = now_s
        self.running.append(generation)


def _rank(generation: Generation) -> Rank:
    return generation.rank


def _lacks_room(generation: Generation) -> bool:
    return generation.state is State.RUNNING and generation.computed == generation.room

"""An executor that answers by a rule, checks what it is given, and fails when it is told to."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from engine.batching import Batch, Chunk, Drawn, ExecutorFailed, Limits, Request, Scheduler

EOS = 0
VOCABULARY = 1000
Rule = Callable[[Sequence[int]], int]
"""Text so far -> next token."""


def counting(text: Sequence[int]) -> int:
    """1, 2, 3 and so on from the last token; never the end."""
    return text[-1] % (VOCABULARY - 1) + 1


class FakeExecutor:
    """Keeps the token of each position in its block, as a real one keeps keys and values, and
    answers from what it finds there: a wrong table, a block shared wrongly or a position that was
    never computed gives a wrong answer or an assertion, not a right one by luck."""

    def __init__(
        self,
        *,
        blocks: int = 64,
        block_tokens: int = 4,
        context_tokens: int = 512,
        block_bytes: int = 1024,
        rule: Rule = counting,
        eos: int | None = EOS,
    ) -> None:
        self.blocks = blocks
        self.block_tokens = block_tokens
        self.context_tokens = context_tokens
        self.block_bytes = block_bytes
        self.eos = eos
        self.rule = rule
        self.store: dict[int, list[int | None]] = {}
        self.batches: list[Batch] = []
        self.computed: list[tuple[int, int]] = []
        """(request, tokens) of every row run, in order."""
        self.failures_left = 0
        self.poison: Collection[int] = ()
        """Requests with one of these tokens in a batch make it fail."""
        self.during: Callable[[Batch], Any] = lambda batch: None
        """Called in the middle of each execution."""

    def execute(self, batch: Batch) -> Drawn:
        self.during(batch)
        if self.failures_left:
            self.failures_left -= 1
            raise ExecutorFailed("told to")
        if any(token in self.poison for token in batch.tokens):
            raise ExecutorFailed("poisoned")
        self.batches.append(frozen(batch))
        self._write(batch)
        return Drawn([self.rule(self._text(batch, index)) for index in batch.sampled])

    def _write(self, batch: Batch) -> None:
        row = 0
        for index, (start, count) in enumerate(zip(batch.starts, batch.counts, strict=True)):
            assert count > 0
            for position in range(start, start + count):
                number = batch.tables[index][position // self.block_tokens]
                assert 0 <= number < self.blocks
                content = self.store.setdefault(number, [None] * self.block_tokens)
                content[position % self.block_tokens] = batch.tokens[row]
                row += 1
            self.computed.append((batch.requests[index], count))
        assert row == len(batch.tokens)

    def _text(self, batch: Batch, index: int) -> list[int]:
        text: list[int] = []
        for position in range(batch.starts[index] + batch.counts[index]):
            content = self.store[batch.tables[index][position // self.block_tokens]]
            token = content[position % self.block_tokens]
            assert token is not None
            text.append(token)
        return text


def frozen(batch: Batch) -> Batch:
    return Batch(
        tuple(batch.requests),
        tuple(batch.tokens),
        tuple(batch.starts),
        tuple(batch.counts),
        tuple(tuple(table) for table in batch.tables),
        tuple(batch.sampled),
        tuple(batch.sampling),
    )


def spell(token: int) -> bytes:
    """Of the counting vocabulary."""
    if not 0 <= token < VOCABULARY:
        raise LookupError(f"no token {token}")
    return b"<%d>" % token


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class World:
    """A scheduler, its executor and its clock, and what came out, by request."""

    def __init__(
        self,
        *,
        executor: FakeExecutor | None = None,
        spell: Callable[[int], bytes] = spell,
        **limits: Any,
    ) -> None:
        self.executor = executor if executor is not None else FakeExecutor()
        self.clock = Clock()
        self.scheduler = Scheduler(self.executor, spell, limits=Limits(**limits), clock=self.clock)
        self.chunks: dict[int, list[Chunk]] = {}

    def submit(self, prompt: Sequence[int] = (1,), max_tokens: int = 4, **options: Any) -> int:
        number = self.scheduler.submit(Request(prompt=prompt, max_tokens=max_tokens, **options))
        self.chunks[number] = []
        return number

    def step(self, seconds: float = 1.0) -> list[Chunk]:
        """A step that takes so long."""
        self.clock.now_s += seconds
        chunks = self.scheduler.step()
        self.take(chunks)
        statistics = self.scheduler.statistics()
        assert statistics.kv_blocks_used <= statistics.kv_blocks_total
        return chunks

    def take(self, chunks: Sequence[Chunk]) -> None:
        for chunk in chunks:
            assert self.ending(chunk.request) is None, "a chunk after the last"
            self.chunks[chunk.request].append(chunk)

    def run(self, seconds: float = 1.0, steps_max: int = 10_000) -> int:
        """Until nobody is left, in steps of so many seconds; how many it took."""
        for steps in range(steps_max):
            if not self.scheduler.busy:
                return steps
            self.step(seconds)
        raise AssertionError(f"not done after {steps_max} steps")

    def tokens(self, number: int) -> list[int]:
        return [chunk.token for chunk in self.chunks[number] if chunk.token is not None]

    def text(self, number: int) -> str:
        return "".join(chunk.text for chunk in self.chunks[number])

    def ending(self, number: int) -> str | None:
        chunks = self.chunks[number]
        return chunks[-1].ending if chunks else None

    @property
    def running(self) -> int:
        return self.scheduler.statistics().num_requests_running

    @property
    def used(self) -> int:
        return self.scheduler.statistics().kv_blocks_used

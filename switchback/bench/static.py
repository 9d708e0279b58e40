"""Static batches on an executor, without a scheduler: what continuous batching is compared with.

A batch is filled and runs until its longest answer has ended; then the next. It keeps its shape, as
batches do that are one array of padded rows: a row whose answer has ended is computed on, and what
comes of it is dropped. With answers of one length no row is wasted, and it is the executor alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from engine.batching import Batch, Executor, Limits, Request


def generate_static(executor: Executor, requests: Sequence[Request], limits: Limits) -> int:
    """Tokens of all answers, which are as long as they may be."""
    for first in range(0, len(requests), limits.batch_max):
        _Static(executor, requests[first : first + limits.batch_max]).run(limits.step_tokens_max)
    return sum(request.max_tokens for request in requests)


class _Static:
    """One batch."""

    def __init__(self, executor: Executor, requests: Sequence[Request]) -> None:
        self._executor = executor
        self._requests = requests
        self._tables = list(_tables(executor, requests))
        self._sampling = [request.sampling for request in requests]

    def run(self, step_tokens_max: int) -> None:
        tokens = self._prompts(step_tokens_max)
        requests = range(len(tokens))
        counts, sampled = [1] * len(tokens), list(requests)
        lasts = [len(each.prompt) + each.max_tokens - 2 for each in self._requests]
        for step in range(max(request.max_tokens for request in self._requests) - 1):
            starts = [
                min(len(request.prompt) + step, last)
                for request, last in zip(self._requests, lasts, strict=True)
            ]
            batch = Batch(requests, tokens, starts, counts, self._tables, sampled, self._sampling)
            tokens = list(self._executor.execute(batch).tokens)

    def _prompts(self, step_tokens_max: int) -> list[int]:
        """The first tokens of all answers; no step computes more tokens than it may."""
        drawn: list[int] = []
        for first, end in _steps([len(each.prompt) for each in self._requests], step_tokens_max):
            asked = self._requests[first:end]
            batch = Batch(
                range(first, end),
                [token for request in asked for token in request.prompt],
                [0] * len(asked),
                [len(request.prompt) for request in asked],
                self._tables[first:end],
                range(len(asked)),
                self._sampling[first:end],
            )
            drawn += self._executor.execute(batch).tokens
        return drawn


def _tables(executor: Executor, requests: Sequence[Request]) -> Iterator[list[int]]:
    """Blocks for the whole of each text, from the beginning."""
    free = iter(range(executor.blocks))
    for request in requests:
        tokens = len(request.prompt) + request.max_tokens - 1
        yield [next(free) for _ in range(-(-tokens // executor.block_tokens))]


def _steps(lengths: Sequence[int], step_tokens_max: int) -> Iterator[tuple[int, int]]:
    """(first, end) of requests whose prompts go into one step together."""
    first, held = 0, 0
    for index, length in enumerate(lengths):
        if held + length > step_tokens_max and index > first:
            yield first, index
            first, held = index, 0
        held += length
    yield first, len(lengths)

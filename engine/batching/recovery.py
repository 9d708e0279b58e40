"""Computing a batch whatever the executor does.

A batch that fails is tried again. If it keeps failing, it is halved, and its halves are, until the
requests are found that cannot be computed even alone; all others get their tokens in the same step.
One bad request among n costs about 2 log2(n) executions more.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import structlog

from engine.batching.executor import Batch, Drawn, Executor, ExecutorFailed, ExecutorLost

_log = structlog.get_logger(__name__)


class Part(msgspec.Struct, frozen=True):
    """A part of a batch, and what came of it."""

    begin: int
    end: int
    """Requests of the whole batch from `begin` to before `end`."""
    batch: Batch
    drawn: Drawn | ExecutorFailed
    """A failure is that of one request alone."""


class Recovery:
    """Calls one executor."""

    def __init__(self, executor: Executor, *, retries_max: int) -> None:
        self._executor = executor
        self._retries_max = retries_max
        self.failures = 0
        """Executions that failed."""

    def execute(self, batch: Batch) -> Iterator[Part]:
        """All parts in order, together the whole batch. Raises ExecutorLost."""
        return self._parts(batch, 0, attempts=1 + self._retries_max)

    def _parts(self, batch: Batch, begin: int, *, attempts: int) -> Iterator[Part]:
        size = len(batch.requests)
        outcome = self._tried(batch, attempts)
        if size == 1 or isinstance(outcome, Drawn):
            yield Part(begin, begin + size, batch, outcome)
            return
        half = size // 2
        for first, last in ((0, half), (half, size)):
            part = batch.part(first, last)
            yield from self._parts(part, begin + first, attempts=self._attempts(last - first))

    def _attempts(self, size: int) -> int:
        """Of a part: a request is not given up for one bad moment, a larger part just divides."""
        return 1 + self._retries_max if size == 1 else 1

    def _tried(self, batch: Batch, attempts: int) -> Drawn | ExecutorFailed:
        failure = ExecutorFailed("not tried")
        for _ in range(attempts):
            try:
                return self._computed(batch)
            except ExecutorLost:
                self.failures += 1
                raise
            except ExecutorFailed as error:
                failure = error
            except Exception as error:  # whatever an executor raises is its failure, not ours
                failure = ExecutorFailed(f"{type(error).__name__}: {error}")
                failure.__cause__ = error
            self.failures += 1
            _log.warning("batch_failed", requests=len(batch.requests), detail=failure.detail)
        return failure

    def _computed(self, batch: Batch) -> Drawn:
        drawn = self._executor.execute(batch)
        for drawn_for in (drawn.tokens, drawn.details):
            if drawn_for is not None and len(drawn_for) != len(batch.sampled):
                raise ExecutorFailed(f"{len(drawn_for)} draws for {len(batch.sampled)} requests")
        return drawn

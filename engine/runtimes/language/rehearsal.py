"""An executor that fails, or is slow, on purpose: to see beforehand what becomes of requests."""

from __future__ import annotations

import time

from engine.batching import Batch, Drawn, Executor, ExecutorFailed
from engine.runtimes.configs import Rehearsal


class RehearsingExecutor:
    """An `Executor` around another. Behaves until it is told to `begin`."""

    def __init__(self, executor: Executor, rehearsal: Rehearsal) -> None:
        self._executor = executor
        self._rehearsal = rehearsal
        self._failures_left = 0
        self._began = False
        self.failing: set[int] = set()
        """Numbers of the requests that cannot be computed."""

    def begin(self) -> None:
        self._began = True
        self._failures_left = self._rehearsal.failing_steps

    def marks(self, prompt: str) -> bool:
        """Whether a request with this prompt is to fail."""
        text = self._rehearsal.failing_text
        return text is not None and text in prompt

    @property
    def block_tokens(self) -> int:
        return self._executor.block_tokens

    @property
    def block_bytes(self) -> int:
        return self._executor.block_bytes

    @property
    def blocks(self) -> int:
        return self._executor.blocks

    @property
    def context_tokens(self) -> int:
        return self._executor.context_tokens

    @property
    def eos(self) -> int | None:
        return self._executor.eos

    def execute(self, batch: Batch) -> Drawn:
        if self._began:
            time.sleep(self._rehearsal.step_ms / 1_000)
            if self._failures_left:
                self._failures_left -= 1
                raise ExecutorFailed("told to fail: one of the first executions")
            if not self.failing.isdisjoint(batch.requests):
                raise ExecutorFailed("told to fail: by the text of the prompt")
        return self._executor.execute(batch)

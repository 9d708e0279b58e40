"""An answer on its way: its chunks, and what is counted when it is over."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias

from engine.runtimes.documents import Assembly, usage_of
from handlers.attempts import Asked, Begun, Served
from handlers.executions import UNEXPECTED, Chunk, InferenceFailed, RequestTimedOut
from handlers.proof import Proof

Ended: TypeAlias = Callable[[Any], None]
"""Told of the outputs that were streamed, put together."""


class Chunks:
    """The outputs of a stream that has begun. Its passage ends once, whoever ends it."""

    def __init__(
        self, asked: Asked, served: Served[Begun], *, assembly: Assembly | None, ended: Ended
    ) -> None:
        """`assembly`: where somebody wants to know what was answered in the end."""
        self._began = asked.began
        self._passage = served.passage
        self._first: Chunk | None = served.answer.first
        self._rest = served.answer.rest
        self._assembly = assembly
        self._ended = ended
        self._tokens = 0
        self._is_over = False
        self.is_followed = False
        """After the chunk that was read last, the next one, or the failure in its place, is known
        to come without waiting. Never after the first, which nobody is to hold up for others."""

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> Any:
        """Raises InferenceFailed: nothing is repeated any more."""
        if self._is_over:
            raise StopAsyncIteration
        try:
            outputs = await self._next()
        except StopAsyncIteration:
            self._complete()
            raise
        except RequestTimedOut as failure:  # which says nothing about the version
            failure.version = self._passage.version
            self._is_over = True
            self._passage.left()
            raise
        except InferenceFailed as failure:
            failure.version = self._passage.version
            self._fail(failure.code)
            raise
        except Exception:
            self._fail(UNEXPECTED)
            raise
        if (usage := usage_of(outputs)) is not None:
            self._tokens = usage.total_tokens
        if self._assembly is not None:
            self._assembly.add(outputs)
        return outputs

    async def close(self) -> None:
        """Nobody reads on: the version's work ends. Does nothing at the end of the stream."""
        if not self._is_over:
            self._is_over = True
            self._passage.left()
            await self._rest.aclose()

    async def _next(self) -> Any:
        if self._first is not None:
            first, self._first = self._first, None
            return first.outputs
        chunk = await anext(self._rest)
        self.is_followed = chunk.is_followed
        return chunk.outputs

    def _fail(self, code: str) -> None:
        self._is_over = True
        self._passage.failed(code=code)

    def _complete(self) -> None:
        self._is_over = True
        latency_ms = (time.perf_counter() - self._began) * 1_000
        self._passage.answered(latency_ms=latency_ms, tokens=self._tokens)
        if self._assembly is not None and self._assembly.is_whole:
            self._ended(self._assembly.outputs())


class Stream(Proof, frozen=True, kw_only=True):
    """An answer that has begun, and the proof of its route."""

    chunks: Chunks

"""How long one call may wait for what: the time-outs of its phases, under the total."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

from engine.runtimes.upstream.config import UpstreamConfig
from engine.runtimes.upstream.errors import CallerTimedOut, Closed, Phase, TimedOut, UpstreamFailed

T = TypeVar("T")


class Phases:
    """Of one call; begins when it is made. To be made in a running event loop."""

    def __init__(self, config: UpstreamConfig, *, timeout_s: float | None) -> None:
        self._config = config
        self._clock = asyncio.get_running_loop().time
        self._is_callers = timeout_s is not None and timeout_s < config.timeout_s
        self._total_s = min(config.timeout_s, timeout_s or config.timeout_s)
        self._ends = self._clock() + self._total_s
        self._first_byte_ends = self._ends
        self._waiting: asyncio.Timeout | None = None
        self._is_cut_off = False

    @property
    def left_s(self) -> float:
        """Until the call is over, in any case."""
        return self._ends - self._clock()

    def begin_attempt(self) -> None:
        self._first_byte_ends = self._clock() + self._config.first_byte_timeout_s

    def cut_off(self) -> None:
        """Ends what is waited for, now and later, with Closed."""
        self._is_cut_off = True
        self._ends = self._clock()
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(self._clock())

    async def first_byte(self, waiting: Awaitable[T]) -> T:
        """Waits until the attempt's first byte is due. Raises TimedOut."""
        limit_s = self._config.first_byte_timeout_s
        return await self._until(self._first_byte_ends, "first byte", limit_s, waiting)

    async def next_piece(self, waiting: Awaitable[T]) -> T:
        """Raises TimedOut."""
        limit_s = self._config.chunk_timeout_s
        return await self._until(self._clock() + limit_s, "between chunks", limit_s, waiting)

    async def if_soon(self, waiting: Awaitable[T], seconds: float) -> T | None:
        """For what is good to have: None when it is late or fails."""
        with suppress(TimeoutError, UpstreamFailed):
            async with asyncio.timeout(min(seconds, self.left_s)):
                return await waiting
        return None

    async def _until(self, ends: float, phase: Phase, limit_s: float, waiting: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout_at(min(ends, self._ends)) as self._waiting:
                return await waiting
        except TimeoutError:
            failure = TimedOut(phase, limit_s) if ends < self._ends else self._total()
        finally:
            self._waiting = None
        # Raised here, where no error of the client library becomes its context.
        raise Closed() if self._is_cut_off else failure

    def _total(self) -> TimedOut:
        return (CallerTimedOut if self._is_callers else TimedOut)("total", self._total_s)

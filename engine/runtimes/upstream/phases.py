"""How long one call may wait for what: the time-outs of its phases, under the total."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from math import inf
from typing import NamedTuple, TypeVar

from engine.runtimes.upstream.config import UpstreamConfig
from engine.runtimes.upstream.errors import (
    CallerTimedOut,
    Closed,
    Phase,
    RequestTimedOut,
    TimedOut,
    UpstreamFailed,
)

T = TypeVar("T")


class _Due(NamedTuple):
    """When a wait is over, and what is raised then."""

    at: float
    failure: type[TimedOut]
    phase: Phase
    limit_s: float


class Phases:
    """Of one call; begins when it is made. To be made in a running event loop."""

    def __init__(
        self,
        config: UpstreamConfig,
        *,
        timeout_s: float | None,
        patience_s: float | None = None,
        asked_s: float | None = None,
    ) -> None:
        """As in `Call`."""
        self._clock = asyncio.get_running_loop().time
        now = self._clock()
        total_s, total = _shortest(
            (config.timeout_s, TimedOut), (timeout_s, CallerTimedOut), (asked_s, RequestTimedOut)
        )
        self._chunk_s, self._chunk = _shortest(
            (config.chunk_timeout_s, TimedOut), (patience_s, CallerTimedOut)
        )
        self._total = _Due(now + total_s, total, "total", total_s)
        self._patience = _Due(
            now + (patience_s or inf), CallerTimedOut, "first byte", patience_s or inf
        )
        self._first_byte_s = config.first_byte_timeout_s
        self._first_byte = self._total
        self._waiting: asyncio.Timeout | None = None
        self._is_cut_off = False

    @property
    def left_s(self) -> float:
        """Until the call is over, in any case."""
        return self._total.at - self._clock()

    def begin_attempt(self) -> None:
        limit_s = self._first_byte_s
        own = _Due(self._clock() + limit_s, TimedOut, "first byte", limit_s)
        self._first_byte = min(own, self._patience, key=_at)

    def cut_off(self) -> None:
        """Ends what is waited for, now and later, with Closed."""
        self._is_cut_off = True
        self._total = self._total._replace(at=self._clock())
        if self._waiting is not None and not self._waiting.expired():
            self._waiting.reschedule(self._clock())

    async def first_byte(self, waiting: Awaitable[T]) -> T:
        """Waits until the attempt's first byte is due. Raises TimedOut."""
        return await self._until(self._first_byte, waiting)

    async def next_piece(self, waiting: Awaitable[T]) -> T:
        """Raises TimedOut."""
        at = self._clock() + self._chunk_s
        return await self._until(_Due(at, self._chunk, "between chunks", self._chunk_s), waiting)

    async def if_soon(self, waiting: Awaitable[T], seconds: float) -> T | None:
        """For what is good to have: None when it is late or fails."""
        with suppress(TimeoutError, UpstreamFailed):
            async with asyncio.timeout(min(seconds, self.left_s)):
                return await waiting
        return None

    async def _until(self, due: _Due, waiting: Awaitable[T]) -> T:
        if self._total.at <= due.at:
            due = self._total
        try:
            async with asyncio.timeout_at(due.at) as self._waiting:
                return await waiting
        except TimeoutError:
            pass
        finally:
            self._waiting = None
        # Raised here, where no error of the client library becomes its context.
        raise Closed() if self._is_cut_off else due.failure(due.phase, due.limit_s)


def _shortest(
    own: tuple[float, type[TimedOut]], *others: tuple[float | None, type[TimedOut]]
) -> tuple[float, type[TimedOut]]:
    """The shortest of some limits, and what it means when it has passed; the first of equals."""
    given = ((limit_s, failure) for limit_s, failure in others if limit_s is not None)
    return min((own, *given), key=lambda limit: limit[0])


def _at(due: _Due) -> float:
    return due.at

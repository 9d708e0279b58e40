"""Load: the same piece of work again and again, as fast as it is answered or at a steady rate."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import TypeAlias

import msgspec

from switchback.bench.http import Connection, RequestFailed

Work: TypeAlias = Callable[[Connection, int], Awaitable[object]]
"""(connection, number of the request); raises what `Connection.ask` raises."""


class NothingAnswered(Exception):
    """Every single request failed; the message says how the first did."""


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What a load saw."""

    latencies_s: list[float]
    """Of the successful ones, in no order."""
    failed: int
    reason: str
    """Why the first of them failed."""
    seconds: float
    """From the first request to the last answer."""

    @property
    def per_s(self) -> float:
        return len(self.latencies_s) / self.seconds


class _Tally:
    def __init__(self) -> None:
        self.latencies_s: list[float] = []
        self.failed = 0
        self.reason = ""

    async def do(self, work: Work, connection: Connection, number: int, began: float) -> None:
        try:
            await work(connection, number)
        except (RequestFailed, ConnectionError, TimeoutError) as error:
            self.failed += 1
            self.reason = self.reason or str(error)
        else:
            self.latencies_s.append(time.perf_counter() - began)

    def seen(self, began: float) -> Seen:
        """Raises NothingAnswered."""
        if not self.latencies_s:
            raise NothingAnswered(self.reason)
        return Seen(
            latencies_s=self.latencies_s,
            failed=self.failed,
            reason=self.reason,
            seconds=time.perf_counter() - began,
        )


async def flood(connections: Sequence[Connection], count: int, work: Work) -> Seen:
    """Each connection begins the next piece when its last one is done."""
    tally, numbers = _Tally(), iter(range(count))

    async def worker(connection: Connection) -> None:
        for number in numbers:
            await tally.do(work, connection, number, time.perf_counter())

    began = time.perf_counter()
    await asyncio.gather(*(worker(connection) for connection in connections))
    return tally.seen(began)


async def paced(
    connections: Sequence[Connection], numbers: Iterator[int], rate_per_s: float, work: Work
) -> Seen:
    """Piece n begins n / rate after the first, whatever became of the others.

    A piece that found every connection busy counts from when it should have begun, so that a server
    that stalls cannot hide behind a client that waits for it. That our own timer is late by up to a
    millisecond does not count.
    """
    tally = _Tally()
    began = time.perf_counter()

    async def worker(connection: Connection) -> None:
        for number in numbers:
            due = began + number / rate_per_s
            ahead_s = due - time.perf_counter()
            if ahead_s > 0:
                await asyncio.sleep(ahead_s)
                due = time.perf_counter()
            await tally.do(work, connection, number, due)

    await asyncio.gather(*(worker(connection) for connection in connections))
    return tally.seen(began)

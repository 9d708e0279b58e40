"""A scheduler on an event loop: steps while there is work, answers as streams, start and stop.

    serving = Serving(scheduler)
    await serving.start()
    with serving.answer(request) as chunks:
        async for chunk in chunks:
            ...
    await serving.stop("drain")

Steps run on the loop itself, one after another, and everybody else gets a turn after each. It
belongs into a process of its own: beside a busy event loop a model fell from 420 steps/s to 10.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import structlog

from engine.batching.requests import Chunk, Closed, Request
from engine.batching.scheduler import Scheduler

Stopping: TypeAlias = Literal["drain", "abort"]
"""Requests in flight are finished first, or end now."""

Take: TypeAlias = Callable[[Chunk], None]
"""Called with each chunk of an answer, between two steps."""

_log = structlog.get_logger(__name__)


class Serving:
    """One scheduler, one event loop."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._streams: dict[int, Take] = {}
        self._task: asyncio.Task[None] | None = None
        self._accepting = False
        self._wake = asyncio.Event()
        self._over = asyncio.Event()

    @property
    def accepting(self) -> bool:
        """Whether requests are taken in."""
        return self._accepting

    async def start(self) -> None:
        """Take requests in. Does nothing if it runs; waits for a stop that is under way.

        Raises Closed if the executor is lost.
        """
        if self._accepting:
            return
        if self._task is not None and not self._task.done():
            await asyncio.shield(self._task)
        if self._scheduler.lost is not None:
            raise Closed
        if not self._accepting:
            self._accepting = True
            self._over.clear()
            self._task = asyncio.create_task(self._run(), name="batching")

    async def stop(self, how: Stopping) -> None:
        """Take nothing in any more, and return when no request is left.

        May be called again, and with "abort" while a drain is under way. Does nothing if stopped.
        """
        self._accepting = False
        if how == "abort":
            self._deliver(self._scheduler.abort())
        self._wake.set()
        if self._task is not None:
            await asyncio.shield(self._task)

    async def failed(self) -> str:
        """Returns, with the reason, once nothing is computed any more; until then waits."""
        await self._over.wait()
        lost = self._scheduler.lost
        return lost.detail if lost is not None else "the scheduler broke"

    @contextmanager
    def answer(self, request: Request) -> Iterator[AsyncIterator[Chunk]]:
        """The chunks of one request's answer. Raises Refused, at once.

        Who leaves before the last chunk cancels the request: no later step computes it.
        """
        stream: asyncio.Queue[Chunk] = asyncio.Queue()
        number = self.enter(request, stream.put_nowait)
        try:
            yield _chunks(stream)
        finally:
            self.leave(number)

    def enter(self, request: Request, take: Take) -> int:
        """Take a request in, by its number; `take` gets its chunks. Raises Refused, at once.

        For who has many answers and one place to send them to: a task for each would cost more
        than computing them. After the last chunk nothing is kept of it.
        """
        if not self._accepting:
            raise Closed
        number = self._scheduler.submit(request)
        self._streams[number] = take
        self._wake.set()
        return number

    def leave(self, number: int) -> None:
        """Take no further chunk; if there would be one, no later step computes it."""
        if self._streams.pop(number, None) is not None:
            self._scheduler.cancel(number)

    async def _run(self) -> None:
        try:
            while self._accepting or self._scheduler.busy:
                if self._scheduler.busy:
                    self._deliver(self._scheduler.step())
                    await asyncio.sleep(0)
                else:
                    self._wake.clear()
                    await self._wake.wait()
                if self._scheduler.lost is not None:
                    self._close()
        except Exception as error:
            _log.exception("scheduler_broke", requests=len(self._streams))
            for number in list(self._streams):
                self._deliver([Chunk(number, None, "", "failed", str(error))])
            self._close()
            raise

    def _close(self) -> None:
        self._accepting = False
        self._over.set()

    def _deliver(self, chunks: Iterable[Chunk]) -> None:
        for chunk in chunks:
            take = self._streams.get(chunk.request)
            if take is None:
                continue
            if chunk.ending is not None:
                del self._streams[chunk.request]
            take(chunk)


async def _chunks(stream: asyncio.Queue[Chunk]) -> AsyncIterator[Chunk]:
    while True:
        chunk = await stream.get()
        yield chunk
        if chunk.ending is not None:
            return

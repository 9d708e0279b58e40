"""Live events as Server-Sent Events.

Guarantees: every event of the tenant after the given position, in order, without gap or repeat;
`id:` is the position, so a client that comes back with `Last-Event-ID` goes on where it was. A
client that does not read holds up its own stream alone, and is cut off after `STALLED_SECONDS`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing
from typing import Final

import structlog
from litestar import Response
from litestar.types import Receive, Scope, Send

from events import EventLog, MalformedEvent, Position, Recorded
from events.codec import encode_recorded
from handlers.http.problems import Rejected

_log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS: Final = 15.0
STALLED_SECONDS: Final = 30.0
STREAMS_MAX: Final = 256
"""Open at once in one process; each is a subscription of its own."""
BATCH_EVENTS_MAX: Final = 100
CHUNK_BYTES: Final = 64 * 1024
"""Sent at once, unless a single event is larger."""
MEDIA_TYPE: Final = "text/event-stream"

_HEARTBEAT: Final = b": still here\n\n"
_HEADERS: Final = [
    (b"content-type", MEDIA_TYPE.encode()),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class Streams:
    """The event streams of one process."""

    def __init__(
        self,
        log: EventLog,
        *,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        stalled_seconds: float = STALLED_SECONDS,
        streams_max: int = STREAMS_MAX,
    ) -> None:
        self._log = log
        self._heartbeat_seconds = heartbeat_seconds
        self._stalled_seconds = stalled_seconds
        self._streams_max = streams_max
        self._open: set[asyncio.Task[None]] = set()
        self._closed = False
        self.idle = asyncio.Event()
        """Set while no stream is open."""
        self.idle.set()

    @property
    def open(self) -> int:
        return len(self._open)

    def response(
        self, pattern: str, *, after: Position, allowed: Callable[[], bool]
    ) -> EventStream:
        """Raises Rejected (`overloaded`) when too many are open.

        `allowed` is asked before anything is sent: the stream ends when its key does.
        """
        if self._closed or len(self._open) >= self._streams_max:
            raise Rejected("overloaded", f"{len(self._open)} event streams are open")
        return EventStream(self, pattern, after, allowed)

    def close(self) -> None:
        """End every stream; clients come back with `Last-Event-ID`."""
        self._closed = True
        for task in self._open:
            task.cancel()

    async def serve(
        self,
        pattern: str,
        after: Position,
        allowed: Callable[[], bool],
        receive: Receive,
        send: Send,
    ) -> None:
        """Send until the client goes, stalls, may not any more, or `close`."""
        writing = asyncio.create_task(self._write(pattern, after, allowed, send))
        leaving = asyncio.create_task(_disconnected(receive))
        self._open.add(writing)
        self.idle.clear()
        try:
            await asyncio.wait({writing, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (writing, leaving):
                task.cancel()
            results = await asyncio.gather(writing, leaving, return_exceptions=True)
            self._open.discard(writing)
            if not self._open:
                self.idle.set()
        if isinstance(results[0], TimeoutError):
            _log.info("an event stream stalled and was cut off", pattern=pattern)
        elif isinstance(results[0], Exception):
            raise results[0]

    async def _write(
        self, pattern: str, after: Position, allowed: Callable[[], bool], send: Send
    ) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        try:
            await self._body(send, _HEARTBEAT)
            async with aclosing(self._frames(pattern, after)) as frames:
                async for frame in frames:
                    if not allowed():
                        break
                    await self._body(send, frame)
        except MalformedEvent as error:
            _log.error("an event stream met a foreign message", error=str(error))
            await self._body(send, b"event: malformed\ndata: %d\n\n" % error.position)
        except asyncio.CancelledError:
            await self._end(send)
            raise
        await self._end(send)

    async def _frames(self, pattern: str, after: Position) -> AsyncGenerator[bytes, None]:
        """Batches of events as they come; a comment when none came for a while."""
        batches = self._log.subscribe_batches(pattern, after=after, batch_max=BATCH_EVENTS_MAX)
        waiting: asyncio.Task[Sequence[Recorded]] | None = None
        try:
            while True:
                waiting = waiting or asyncio.ensure_future(_next(batches))
                done, _ = await asyncio.wait({waiting}, timeout=self._heartbeat_seconds)
                if done:
                    for chunk in _chunks(waiting.result()):
                        yield chunk
                    waiting = None
                else:
                    yield _HEARTBEAT
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            await _close(batches)

    async def _body(self, send: Send, data: bytes) -> None:
        async with asyncio.timeout(self._stalled_seconds):
            await send({"type": "http.response.body", "body": data, "more_body": True})

    async def _end(self, send: Send) -> None:
        async with asyncio.timeout(1):
            await send({"type": "http.response.body", "body": b"", "more_body": False})


class EventStream(Response[bytes]):
    """The response that serves one stream."""

    def __init__(
        self, streams: Streams, pattern: str, after: Position, allowed: Callable[[], bool]
    ) -> None:
        super().__init__(b"", media_type=MEDIA_TYPE)
        self._streams = streams
        self._pattern = pattern
        self._after = after
        self._allowed = allowed

    def to_asgi_response(self, *_: object, **__: object) -> EventStream:  # type: ignore[override]
        return self

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        await self._streams.serve(self._pattern, self._after, self._allowed, receive, send)


async def _next(batches: AsyncIterator[Sequence[Recorded]]) -> Sequence[Recorded]:
    return await anext(batches)


async def _close(batches: AsyncIterator[Sequence[Recorded]]) -> None:
    aclose = getattr(batches, "aclose", None)
    if aclose is not None:
        await aclose()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _chunks(batch: Sequence[Recorded]) -> Iterator[bytes]:
    """The batch's frames, several in a chunk: one send each would cost more than the events."""
    waiting: list[bytes] = []
    waiting_bytes = 0
    for recorded in batch:
        frame = _frame(recorded)
        waiting.append(frame)
        waiting_bytes += len(frame)
        if waiting_bytes >= CHUNK_BYTES:
            yield b"".join(waiting)
            waiting, waiting_bytes = [], 0
    if waiting:
        yield b"".join(waiting)


def _frame(recorded: Recorded) -> bytes:
    return b"id: %d\ndata: %s\n\n" % (recorded.position, encode_recorded(recorded))

"""A stream of chunks: as it arrives, and as its reader holds it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import aiohttp

from engine.runtimes.upstream.answers import Chunk
from engine.runtimes.upstream.breaker import Permit
from engine.runtimes.upstream.chunks import ChunkReader
from engine.runtimes.upstream.errors import UpstreamFailed
from engine.runtimes.upstream.phases import Phases
from engine.runtimes.upstream.wire import Wire

Wait: TypeAlias = Callable[[Awaitable[bytes]], Awaitable[bytes]]

LAST_BYTES_SECONDS: Final = 0.25
"""How long a stream that is over waits for the end of its HTTP answer, to keep the connection."""


class Arriving:
    """The chunks of one response, whose head has arrived."""

    def __init__(
        self, response: aiohttp.ClientResponse, reader: ChunkReader, wire: Wire, phases: Phases
    ) -> None:
        self._response = response
        self._reader = reader
        self._wire = wire
        self._phases = phases
        self._first: Chunk | None = None

    async def begin(self) -> None:
        """Waits for the first chunk. Raises UpstreamFailed."""
        self._first = await self._next(self._phases.first_byte)

    async def next(self) -> Chunk | None:
        """None at the end, again and again. Raises UpstreamFailed."""
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._next(self._phases.next_piece)

    @property
    def is_followed(self) -> bool:
        """As `Stream.is_followed`."""
        return self._reader.has_more

    def close(self) -> None:
        """At once; a connection whose answer has not ended is closed with it."""
        self._response.close()

    async def _next(self, wait: Wait) -> Chunk | None:
        while not self._reader.is_over:
            chunk = self._reader.take()
            if chunk is not None:
                return chunk
            if not self._reader.is_over:
                await self._receive(wait)
        return None

    async def _receive(self, wait: Wait) -> None:
        piece = await wait(self._wire.piece(self._response))
        if piece:
            self._reader.feed(piece)
        else:
            self._reader.end()

    async def settle(self) -> None:
        """After the end: what is still on its way is nothing that counts."""
        if not self._response.content.at_eof():
            await self._phases.if_soon(self._wire.piece(self._response), LAST_BYTES_SECONDS)


class Stream:
    """The chunks of one answer, the first of which has arrived. Iterate once."""

    def __init__(
        self, arriving: Arriving, permit: Permit, *, attempts: int, first_chunk_s: float
    ) -> None:
        self.attempts = attempts
        """Requests that were sent for it."""
        self.first_chunk_s = first_chunk_s
        """From the call to the first chunk, with failed attempts and the pauses between."""
        self._arriving = arriving
        self._permit = permit

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> Chunk:
        """Raises UpstreamFailed when the stream breaks: nothing is repeated now."""
        try:
            chunk = await self._arriving.next()
        except UpstreamFailed as failure:
            failure.attempts = self.attempts
            if failure.verdict == "failed":
                self._permit.broke_off()
            self.close()
            raise
        if chunk is None:
            await self._arriving.settle()
            self.close()
            raise StopAsyncIteration
        return chunk

    @property
    def is_followed(self) -> bool:
        """Whether the next chunk, or the failure in its place, comes without waiting."""
        return self._arriving.is_followed

    def close(self) -> None:
        """Ends it wherever it is; the upstream sees its connection closed and can stop."""
        self._arriving.close()

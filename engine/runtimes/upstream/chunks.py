"""From the bytes of a stream to its chunks, in order, whole, and within bounds. Pure."""

from __future__ import annotations

from collections import deque

from engine.runtimes.upstream.answers import STREAM_END, Chunk, Order, chunk_of
from engine.runtimes.upstream.errors import HalfAnswered, Malformed, TooLarge
from engine.runtimes.upstream.sse import EventParser


class ChunkReader:
    """Feed it bytes, take chunks; tell it when the bytes end.

    A stream is whole when it said `[DONE]`, or when it ended after every choice it began had said
    why it finished: some upstreams say no more.
    """

    def __init__(self, *, stream_bytes_max: int) -> None:
        self._stream_bytes_max = stream_bytes_max
        self._parser = EventParser()
        self._order = Order()
        self._events: deque[bytes] = deque()
        self._bytes = 0
        self.is_over = False
        """The stream is whole, and all its chunks were taken."""

    @property
    def has_more(self) -> bool:
        """Whether a chunk, or what is none, has arrived and was not taken: not the end, after
        which there may be something to wait for."""
        return bool(self._events) and self._events[0].strip() != STREAM_END

    def feed(self, piece: bytes) -> None:
        """Raises TooLarge."""
        self._bytes += len(piece)
        if self._bytes > self._stream_bytes_max:
            raise TooLarge("the upstream's stream", self._stream_bytes_max)
        self._events.extend(self._parser.feed(piece))

    def take(self) -> Chunk | None:
        """The next chunk that has arrived. Raises Malformed, BrokenOff."""
        if self.is_over or not self._events:
            return None
        data = self._events.popleft()
        if data.strip() == STREAM_END:
            self._end_in_order()
            return None
        chunk = chunk_of(data)
        self._order.take(chunk)
        return chunk

    def end(self) -> None:
        """No more bytes will come, and all chunks were taken. Raises HalfAnswered, Malformed."""
        if not self._parser.is_between_events:
            raise HalfAnswered("the upstream's stream ended in the middle of a chunk")
        if not self._order.is_empty and not self._order.is_complete:
            raise HalfAnswered("the upstream's stream ended before its end")
        self._end_in_order()

    def _end_in_order(self) -> None:
        if self._order.is_empty:
            raise Malformed("the upstream's stream ended before it began")
        self.is_over = True

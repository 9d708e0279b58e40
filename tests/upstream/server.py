"""An upstream on loopback that misbehaves as it is told to, and tells what it saw.

Each request takes the next behaviour of its list, the last one for all that follow. A behaviour
writes whatever bytes it likes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import msgspec

HELLO = {
    "id": "answer-1",
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
}
EVENTS_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"


class Exchange:
    """One request, and the connection to answer it on."""

    def __init__(
        self,
        line: str,
        headers: Mapping[str, str],
        body: bytes,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.line = line
        self.headers = headers
        self.body = body
        self.reader = reader
        self.writer = writer

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_left(self) -> None:
        """Waits until the caller closes its connection."""
        while await self.reader.read(2**16):
            pass


Behaviour: TypeAlias = Callable[[Exchange], Awaitable[None]]


class MockUpstream:
    def __init__(self) -> None:
        self.behaviours: list[Behaviour] = [answers(HELLO)]
        self.requests: list[Exchange] = []
        self.accepted = 0
        self.open = 0
        self._changed = asyncio.Condition()
        self.url = ""

    async def until(self, predicate: Callable[[MockUpstream], bool]) -> None:
        """Waits for a request or an end of a connection that makes it so."""
        async with self._changed:
            await self._changed.wait_for(lambda: predicate(self))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.open += 1
        try:
            while await self._serve_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the caller has gone
        finally:
            writer.close()
            self.open -= 1
            await self._tell()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:-2])
        }
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        exchange = Exchange(head[0], headers, body, reader, writer)
        behaviour = self.behaviours[min(len(self.requests), len(self.behaviours) - 1)]
        self.requests.append(exchange)
        await self._tell()
        await behaviour(exchange)
        return not writer.is_closing()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@asynccontextmanager
async def mock_upstream() -> AsyncIterator[MockUpstream]:
    mock = MockUpstream()
    serving: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(mock.serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    mock.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield mock
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


def raw(data: bytes) -> Behaviour:
    """These bytes, and the connection stays open."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(data)

    return behave


def cut(data: bytes = b"") -> Behaviour:
    """These bytes, and the end of the connection."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(data)
        exchange.writer.close()

    return behave


def stalls(data: bytes = b"") -> Behaviour:
    """These bytes, and nothing more, until the caller leaves."""

    async def behave(exchange: Exchange) -> None:
        await exchange.send(data)
        await exchange.until_left()
        exchange.writer.close()

    return behave


def document(
    body: bytes,
    *,
    status: int = 200,
    type_: str = "application/json",
    headers: Mapping[str, str] | None = None,
) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", f"content-type: {type_}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def answers(value: Any, **options: Any) -> Behaviour:
    return raw(document(msgspec.json.encode(value), **options))


def chunk(text: str = "", *, index: int = 0, finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "answer-1",
        "object": "chat.completion.chunk",
        "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}],
    }


def event(value: Any) -> bytes:
    return b"data: " + (value if isinstance(value, bytes) else msgspec.json.encode(value)) + b"\n\n"


def http_chunks(*pieces: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)


def stream_bytes(*values: Any) -> bytes:
    """A stream's head and these events, without its end."""
    return EVENTS_HEAD + CHUNKED + http_chunks(*map(event, values))


def streams(*values: Any) -> Behaviour:
    """A stream that ends as it should."""
    return raw(stream_bytes(*values, b"[DONE]") + b"0\r\n\r\n")

"""A mock upstream in a process of its own: OpenAI's protocol on raw sockets, answers made before.

It spends about 15 us on a request, so that what is measured is what stands before it.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any, Final, cast

import msgspec
import uvloop

from switchback.bench.http import Target

CHUNKS: Final = 20
"""With text, of each stream."""
_HOST: Final = "127.0.0.1"
_START_SECONDS_MAX: Final = 30.0
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_STREAMED: Final = re.compile(rb'"stream": ?true')
_USAGE: Final = {"prompt_tokens": 12, "completion_tokens": CHUNKS, "total_tokens": 12 + CHUNKS}
_context: Final = multiprocessing.get_context("spawn")


def _document(**members: Any) -> dict[str, Any]:
    return {"id": "chatcmpl-mock", "created": 1_700_000_000, "model": "mock", **members}


def _whole() -> bytes:
    message = {"role": "assistant", "content": "word " * CHUNKS}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    body = msgspec.json.encode(_document(object="chat.completion", choices=[choice], usage=_USAGE))
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: "
    return head + str(len(body)).encode() + _HEAD_END + body


def _event(data: bytes) -> bytes:
    frame = b"data: " + data + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(frame), frame)


def _chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return _event(msgspec.json.encode(_document(object="chat.completion.chunk", choices=[choice])))


def _stream() -> tuple[bytes, ...]:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked"
    usage = _document(object="chat.completion.chunk", choices=[], usage=_USAGE)
    words = (_chunk({"content": "word "}) for _ in range(CHUNKS))
    last = _event(msgspec.json.encode(usage)) + _event(b"[DONE]") + b"0" + _HEAD_END
    begin = head + _HEAD_END + _chunk({"role": "assistant", "content": ""})
    return (begin, *words, _chunk({}, "stop") + last)


_WHOLE: Final = _whole()
_STREAM: Final = _stream()


class _Mock(asyncio.Protocol):
    """One connection: one request at a time, as clients with keep-alive send them."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        head_end = self._received.find(_HEAD_END)
        if head_end < 0:
            return
        length = _LENGTH.search(self._received, 0, head_end)
        end = head_end + len(_HEAD_END) + (int(length[1]) if length is not None else 0)
        if len(self._received) >= end:
            request, self._received = self._received[:end], self._received[end:]
            self._answer(request)

    def _answer(self, request: bytes) -> None:
        if _STREAMED.search(request):
            self._stream(0)
        else:
            self._transport.write(_WHOLE)

    def _stream(self, piece: int) -> None:
        """Each piece is a segment of its own, as an upstream that computes sends them."""
        self._transport.write(_STREAM[piece])
        if piece + 1 < len(_STREAM) and not self._transport.is_closing():
            asyncio.get_running_loop().call_soon(self._stream, piece + 1)


@asynccontextmanager
async def mock_upstream() -> AsyncIterator[Target]:
    """Where it listens, for as long as the block lasts."""
    ours, theirs = _context.Pipe()
    process = _context.Process(target=_run, args=(theirs,), daemon=True)
    await asyncio.to_thread(process.start)
    theirs.close()
    try:
        assert await asyncio.to_thread(ours.poll, _START_SECONDS_MAX), "the mock did not start"
        yield Target(_HOST, ours.recv(), "none")
    finally:
        ours.close()
        await asyncio.to_thread(process.join)


def _run(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    uvloop.run(_serve(pipe))


async def _serve(pipe: Connection) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    server = await loop.create_server(_Mock, _HOST, 0)
    loop.add_reader(pipe.fileno(), stop.set)
    pipe.send(server.sockets[0].getsockname()[1])
    await stop.wait()
    server.close()

"""What a call costs beside the same request on a bare socket: `python -m tests.upstream.bench`.

The upstream is a process of its own that answers at once; caller and upstream share the machine.
Rounds of ours and of the bare socket take turns, each figure is the median of its rounds.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from random import Random
from statistics import median
from typing import Final, TypeAlias, cast

import msgspec
import uvloop

from engine.runtimes.upstream import Call, Keys, Upstream, UpstreamConfig
from tests.upstream.server import chunk, document, stream_bytes

ROUNDS: Final = 5
REQUESTS: Final = 1_500
CHUNKS: Final = 20
CALL: Final = Call(kind="chat", body={"messages": [{"role": "user", "content": "Hello " * 50}]})

_ANSWER: Final = document(
    msgspec.json.encode({"choices": [{"message": {"role": "assistant", "content": "Hi " * 50}}]})
)
_END: Final = b"0\r\n\r\n"
_STREAM: Final = stream_bytes(*[chunk("token")] * CHUNKS, b"[DONE]") + _END

Ask: TypeAlias = Callable[[], Awaitable[object]]


class _Upstream(asyncio.Protocol):
    """Answers each request, which comes in one piece, at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._received = b""

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._received.endswith(b"}"):
            is_stream = b'"stream":true' in self._received
            self._received = b""
            self._transport.write(_STREAM if is_stream else _ANSWER)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class BareSockets:
    """Requests written beforehand, answers read to their end and not looked at."""

    def __init__(self, port: int, body: bytes, end: bytes) -> None:
        self._port = port
        head = f"POST / HTTP/1.1\r\ncontent-length: {len(body)}\r\n\r\n"
        self._request = head.encode() + body
        self._end = end
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self) -> None:
        if not self._idle:
            self._idle.append(await asyncio.open_connection("127.0.0.1", self._port))
        reader, writer = self._idle.pop()
        writer.write(self._request)
        await reader.readuntil(self._end)
        self._idle.append((reader, writer))

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


class Figures(msgspec.Struct, frozen=True):
    per_s: float
    p50_ms: float
    p99_ms: float
    processor_us: float
    """Of the caller, for each request."""


async def measured(ask: Ask, connections: int) -> Figures:
    taken_s: list[float] = []
    numbers = iter(range(REQUESTS))

    async def worker() -> None:
        for _ in numbers:
            began = time.perf_counter()
            await ask()
            taken_s.append(time.perf_counter() - began)

    began, processor_began = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(connections)))
    seconds, processor_s = time.perf_counter() - began, time.process_time() - processor_began
    taken_s.sort()
    return Figures(
        REQUESTS / seconds,
        taken_s[len(taken_s) // 2] * 1_000,
        taken_s[len(taken_s) * 99 // 100] * 1_000,
        processor_s / REQUESTS * 1_000_000,
    )


async def compare(name: str, ours: Ask, bare: Ask) -> None:
    for connections in (1, 16, 64):
        await measured(ours, connections)  # connections are made
        await measured(bare, connections)
        rounds = [
            (await measured(ours, connections), await measured(bare, connections))
            for _ in range(ROUNDS)
        ]
        for who, index in (("ours", 0), ("bare socket", 1)):
            per_s, p50, p99, processor = (
                median(getattr(one[index], field) for one in rounds)
                for field in Figures.__struct_fields__
            )
            print(
                f"{name:14} {connections:3} connections  {who:12} {per_s:8,.0f}/s"
                f"  p50 {p50:6.2f} ms  p99 {p99:6.2f} ms  {processor:5.0f} us of a processor each"
            )


async def bench(port: int) -> None:
    config = UpstreamConfig(url=f"http://127.0.0.1:{port}/v1", model="small")
    async with Upstream(config, keys=Keys(os.environ), random=Random()) as upstream:

        async def stream() -> None:
            async with upstream.stream(CALL) as chunks:
                count = len([one async for one in chunks])
            assert count == CHUNKS

        body = msgspec.json.encode(CALL.body)
        whole = BareSockets(port, body, _ANSWER[-20:])
        await compare("whole answer", lambda: upstream.answer(CALL), whole.ask)
        streamed = BareSockets(port, body[:-1] + b',"stream":true}', _END)
        await compare(f"{CHUNKS} chunks", stream, streamed.ask)
        whole.close()
        streamed.close()


def main() -> None:
    print(f"load before: {os.getloadavg()[0]:.1f} on {os.cpu_count()} processors")
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.upstream.bench", "serve"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert server.stdout is not None
        uvloop.run(bench(int(server.stdout.readline())))
    finally:
        server.terminate()
        server.wait()
    print(f"load after: {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        uvloop.run(serve())
    else:
        main()

"""The client of streams: what counts as answered, and when its chunks came."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from switchback.bench.http import RequestFailed, Target, connected_as
from switchback.bench.streams import StreamConnection

HEAD = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"


def framed(text: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(text), text)


FIRST, SECOND = framed(b'data: {"a":1}\n\n'), framed(b'data: {"b":2}\n\n')
DONE = framed(b"data: [DONE]\n\n")
SAID = {
    b"/whole": [HEAD + FIRST + SECOND + DONE + END],
    b"/pieces": [HEAD[:20], HEAD[20:] + FIRST[:9], FIRST[9:], SECOND + DONE[:-5], DONE[-5:] + END],
    b"/half": [HEAD + FIRST, END],
    b"/refused": [b"HTTP/1.1 503 No\r\ncont", b"ent-length: 4\r\n\r\nbu", b"sy"],
}


class Server(asyncio.Protocol):
    """Says what belongs to a path, in these pieces, each on its own."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        for pieces in (said for path, said in SAID.items() if path in data):
            asyncio.ensure_future(self._say(pieces))  # noqa: RUF006

    async def _say(self, pieces: list[bytes]) -> None:
        for piece in pieces:
            self._transport.write(piece)
            await asyncio.sleep(0)


async def stream(*paths: str) -> list[int]:
    """How many chunks came of each, one after another on one connection."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    target = Target("127.0.0.1", server.sockets[0].getsockname()[1], "key")
    counts = []
    try:
        async with connected_as(StreamConnection, target, 1) as [connection]:
            for path in paths:
                arrivals_s = connection.begin()
                await connection.ask(target.request("POST", path))
                assert arrivals_s == sorted(arrivals_s)
                counts.append(len(arrivals_s))
    finally:
        server.close()
    return counts


async def test_chunks_are_counted_wherever_the_network_cuts_them() -> None:
    assert await stream("/whole", "/pieces", "/whole") == [2, 2, 2]


@pytest.mark.parametrize("path", ["/half", "/refused"])
async def test_a_stream_that_does_not_say_its_end_has_failed(path: str) -> None:
    with pytest.raises(RequestFailed):
        await stream(path)

"""Chats as clients see them: whole answers, and streams with the time of their first words."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, TypeAlias

import msgspec

from switchback.bench.http import Answer, Connection, Target
from switchback.bench.load import Seen, Work, flood, paced

Way: TypeAlias = Literal["whole", "streamed"]
WAYS: Final[tuple[Way, ...]] = ("whole", "streamed")
PATH: Final = "/v1/chat/completions"

_HEAD_END: Final = b"\r\n\r\n"
_END: Final = b"0\r\n\r\n"
_DONE: Final = b"data: [DONE]"
_CHUNKED: Final = b"\r\ntransfer-encoding: chunked"
_HEAD_BYTES_MAX: Final = 4_096
"""Of an answer; it comes in one piece."""


class ChatConnection(Connection):
    """One chat at a time; a stream is an answer when it has said `[DONE]` and ended."""

    def __init__(self) -> None:
        super().__init__()
        self.first_at = 0.0
        """When the first bytes of the last answer came, by the performance counter."""
        self._is_stream = False

    def data_received(self, data: bytes) -> None:
        if not self._received:
            self.first_at = time.perf_counter()
            self._is_stream = _CHUNKED in data[:_HEAD_BYTES_MAX].lower()
        if not self._is_stream:
            super().data_received(data)
            return
        self._received += data
        if self._received.endswith(_END):
            self._settle_stream()

    def _settle_stream(self) -> None:
        received, self._received = self._received, b""
        head, _, body = received.partition(_HEAD_END)
        status = int(head[9:12])
        if status == 200 and _DONE not in body:
            status = 599  # it ended before its end
        self._settle(Answer(status, head, body))


def chat_request(target: Target, model: str, way: Way) -> bytes:
    """One chat of one short message."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Say words."}]}
    if way == "streamed":
        body["stream"] = True
    return target.request("POST", PATH, body)


class Chats(msgspec.Struct, frozen=True, kw_only=True):
    """What a load of chats saw."""

    seen: Seen
    firsts_s: list[float]
    """From each request to the first bytes of its answer."""


async def flood_chats(target: Target, request: bytes, connections: int, count: int) -> Chats:
    """As fast as they are answered."""
    work, firsts_s = _work(request)
    async with _connected(target, connections) as opened:
        return Chats(seen=await flood(opened, count, work), firsts_s=firsts_s)


async def paced_chats(
    target: Target, request: bytes, connections: int, count: int, rate_per_s: float
) -> Chats:
    """At a steady rate."""
    work, firsts_s = _work(request)
    async with _connected(target, connections) as opened:
        seen = await paced(opened, iter(range(count)), rate_per_s, work)
        return Chats(seen=seen, firsts_s=firsts_s)


def _work(request: bytes) -> tuple[Work, list[float]]:
    firsts_s: list[float] = []

    async def work(connection: Connection, _: int) -> Answer:
        assert isinstance(connection, ChatConnection)
        began = time.perf_counter()
        answer = await connection.ask(request)
        firsts_s.append(connection.first_at - began)
        return answer

    return work, firsts_s


@asynccontextmanager
async def _connected(target: Target, count: int) -> AsyncIterator[Sequence[Connection]]:
    loop = asyncio.get_running_loop()
    opened: list[ChatConnection] = []
    try:
        for _ in range(count):
            _, connection = await loop.create_connection(ChatConnection, target.host, target.port)
            opened.append(connection)
        yield opened
    finally:
        for connection in opened:
            connection.close()

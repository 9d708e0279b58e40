"""The lean client: HTTP/1.1 keep-alive on raw sockets, with requests built beforehand.

A general client costs several times what the server costs, and shares its processors; this one
takes about 30 us a request. It knows what our gateway answers with, and nothing more: a status, a
`content-length`, a body.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final, TypeVar, cast

import msgspec

_LINE_END: Final = b"\r\n"
_HEAD_END: Final = _LINE_END * 2
_SAID_CHARS_MAX: Final = 300
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
ANSWER_SECONDS_MAX: Final = 30.0

C = TypeVar("C", bound="Connection")


class Target(msgspec.Struct, frozen=True):
    """A gateway and the key to use there."""

    host: str
    port: int
    key: str

    def request(
        self, method: str, path: str, body: object = None, *, min_position: int | None = None
    ) -> bytes:
        """The bytes of a request; `body` is sent as JSON."""
        lines = [
            f"{method} {path} HTTP/1.1",
            f"host: {self.host}:{self.port}",
            f"authorization: Bearer {self.key}",
        ]
        if min_position is not None:
            lines.append(f"switchback-min-position: {min_position}")
        payload = b""
        if body is not None:
            payload = msgspec.json.encode(body)
            lines += ["content-type: application/json", f"content-length: {len(payload)}"]
        return "\r\n".join(lines).encode() + _HEAD_END + payload


class RequestFailed(Exception):
    """An answer that is not a success."""

    def __init__(self, request: bytes, answer: Answer) -> None:
        super().__init__(request, answer)  # as they are, so that it passes between processes
        self.request = request
        self.answer = answer

    def __str__(self) -> str:
        said = self.answer.body.decode(errors="replace")[:_SAID_CHARS_MAX]
        return f"{self.request.split(_LINE_END, 1)[0].decode()}: {self.answer.status} {said}"


class Answer(msgspec.Struct, frozen=True, gc=False):
    status: int
    head: bytes
    body: bytes

    def header(self, name: str) -> str:
        """A header's value. Raises KeyError."""
        pattern = rb"\r\n" + name.lower().encode() + rb": *([^\r]*)"
        found = re.search(pattern, self.head, re.IGNORECASE)
        if found is None:
            raise KeyError(name)
        return found[1].decode("latin-1")


class Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self) -> None:
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None

    async def ask(self, request: bytes) -> Answer:
        """The answer. Raises RequestFailed, ConnectionError, TimeoutError."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionError("the connection is closed")
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Answer] = loop.create_future()
        self._answer = answer
        late = loop.call_later(ANSWER_SECONDS_MAX, self._give_up)
        self._transport.write(request)
        try:
            answered = await answer
        finally:
            late.cancel()
            self._answer = None
        if not 200 <= answered.status < 300:
            raise RequestFailed(request, answered)
        return answered

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received = received = self._received + data if self._received else data
        head_end = received.find(_HEAD_END)
        if head_end < 0:
            return
        head = received[:head_end]
        length = _LENGTH.search(head)
        body_start = head_end + len(_HEAD_END)
        end = body_start + (int(length[1]) if length is not None else 0)
        if len(received) >= end:
            self._received = received[end:]
            self._settle(Answer(int(head[9:12]), head, received[body_start:end]))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError(f"cut off: {exc}"))

    def _settle(self, answer: Answer) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)

    def _give_up(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(TimeoutError(f"no answer in {ANSWER_SECONDS_MAX} s"))


def connected(target: Target, count: int) -> AbstractAsyncContextManager[list[Connection]]:
    """Connections to a gateway."""
    return connected_as(Connection, target, count)


@asynccontextmanager
async def connected_as(kind: type[C], target: Target, count: int) -> AsyncIterator[list[C]]:
    """Connections of this kind to a gateway."""
    loop = asyncio.get_running_loop()
    connections: list[C] = []
    try:
        for _ in range(count):
            _, connection = await loop.create_connection(kind, target.host, target.port)
            connections.append(connection)
        yield connections
    finally:
        for connection in connections:
            connection.close()

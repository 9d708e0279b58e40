"""Clients that go before they are answered: what was begun for them is cancelled at once."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType
from typing import Any, Final

from litestar import Request, Response
from litestar.types import Message, Receive, Send

CLIENT_LEFT_STATUS: Final = 499
"""What is counted, as other servers do; nobody reads it."""


class ClientLeft(Exception):
    """Whoever asked has gone, or has read nothing for too long."""


class WhileThere:
    """`async with WhileThere(receive)`: the block is cancelled when the client leaves, and
    ClientLeft is raised in its place. The body of the request must have been read.

    Another cancellation of the block stays what it is.
    """

    __slots__ = ("_cancelling", "_left", "_over", "_receive", "_task", "_watching")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left = False
        self._over = False
        self._cancelling = 0
        self._task: asyncio.Task[Any] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> WhileThere:
        self._task = asyncio.current_task()
        assert self._task is not None, "servers run requests as tasks"
        self._cancelling = self._task.cancelling()
        self._watching = asyncio.create_task(_disconnected(self._receive))
        self._watching.add_done_callback(self._watched)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._task is not None
        assert self._watching is not None
        self._over = True
        self._watching.cancel()
        if not self._left:
            return
        others = self._task.uncancel() > self._cancelling
        if not others and kind is not None and issubclass(kind, asyncio.CancelledError):
            raise ClientLeft from error

    def leave(self) -> None:
        """Go on as if the client had left."""
        if not self._over and not self._left:
            assert self._task is not None
            self._left = True
            self._task.cancel()

    def _watched(self, watching: asyncio.Task[None]) -> None:
        if watching.cancelled():
            return
        if watching.exception() is None:
            self.leave()


class Sending:
    """`send` to a client that is taken for gone when it takes nothing for `stalled_seconds` (at
    most twice as long). Within `with sending:`; one timer watches all messages."""

    __slots__ = ("_client", "_send", "_since", "_stalled_seconds", "_timer")

    def __init__(self, send: Send, client: WhileThere, *, stalled_seconds: float) -> None:
        self._send = send
        self._client = client
        self._stalled_seconds = stalled_seconds
        self._since: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._look_later()

    def __exit__(self, *_: object) -> None:
        assert self._timer is not None
        self._timer.cancel()

    async def start(self, headers: list[tuple[bytes, bytes]]) -> None:
        await self._taken({"type": "http.response.start", "status": 200, "headers": headers})

    async def body(self, data: bytes) -> None:
        await self._taken({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes) -> None:
        await self._taken({"type": "http.response.body", "body": data, "more_body": False})

    async def _taken(self, message: Message) -> None:
        self._since = time.monotonic()
        await self._send(message)
        self._since = None

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._stalled_seconds, self._look)

    def _look(self) -> None:
        if self._since is not None and time.monotonic() - self._since >= self._stalled_seconds:
            self._client.leave()
        else:
            self._look_later()


def answer_left(_: Request[Any, Any, Any], __: Exception) -> Response[None]:
    """Litestar's exception handler for ClientLeft."""
    return Response(None, status_code=CLIENT_LEFT_STATUS)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

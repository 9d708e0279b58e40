"""Listening on after an early refusal, so that the client gets to read it.

A server that answers while the body still comes, and then closes, makes the kernel reset the
connection: the client sees a broken pipe instead of the problem. What arrives here is thrown away.
"""

from __future__ import annotations

import asyncio
from typing import Final

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send
from litestar.types.asgi_types import ReceiveMessage

DISCARDED_BYTES_MAX: Final = 64 * 1024 * 1024
LINGER_SECONDS: Final = 5.0
_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


class Lingering:
    """ASGI wrapper around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP or scope["method"] in _BODILESS:
            await self._app(scope, receive, send)
            return
        more = True

        async def receive_seen() -> ReceiveMessage:
            nonlocal more
            message = await receive()
            more = message["type"] == "http.request" and message["more_body"]
            return message

        await self._app(scope, receive_seen, send)
        if more:
            await _discard(receive)


async def _discard(receive: Receive) -> None:
    discarded = 0
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            while discarded < DISCARDED_BYTES_MAX:
                message = await receive()
                if message["type"] != "http.request" or not message["more_body"]:
                    return
                discarded += len(message["body"])
    except TimeoutError:
        return

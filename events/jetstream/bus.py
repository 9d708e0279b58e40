"""The bus on core NATS: nothing is stored, a reply that is lost is lost.

A streamed reply is numbered in its subject (`<inbox>.<n>`), so a lost one is an error and never a
hole in the answer; `<inbox>.end.<count>` ends it. Whoever stops reading says so on
`bus.cancel.<inbox>`, which every serving process hears, and the handler is cancelled. A client that
dies says nothing: handlers bound themselves. A server that dies is known by its silence, see
`events.jetstream.asking`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from events.bus import Handler, StreamHandler
from events.errors import (
    LogUnavailable,
    NoResponders,
    ReaderTooSlow,
    RemoteFailure,
    RequestTimeout,
    ServerDied,
)
from events.jetstream.asking import SILENT_SECONDS, Asking, connected
from events.jetstream.channel import Channel, Interrupted
from events.jetstream.serving import (
    ALIVE,
    CANCEL_PREFIX,
    END,
    ERROR_CODE,
    ERROR_DETAIL,
    BusService,
    Listener,
    Work,
    heard,
)

STREAM_BUFFER_MAX: Final = 10_000
"""Streamed replies that have arrived and were not read; one more ends the stream."""
_TAKE_MAX: Final = 100
_ALIVE: Final = f"0.{ALIVE}"
_log = structlog.get_logger(__name__)

OpenInbox = Callable[[str], Channel]


class JetStreamBus:
    """Request and reply on one connection."""

    def __init__(self, client: Client, open_inbox: OpenInbox) -> None:
        self._client = client
        self._asking = Asking(client)
        self._open_inbox = open_inbox
        self._services: set[BusService] = set()

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """At most one handler got it. Raises NoResponders, RequestTimeout, ServerDied,
        RemoteFailure, LogUnavailable (not connected: it was not sent)."""
        self._check_connected()
        try:
            reply = await self._asking.ask(subject, payload, timeout_s=timeout_s)
        except errors.ConnectionClosedError as error:
            raise LogUnavailable("the connection was closed") from error
        _check_success(subject, reply)
        return reply.data

    async def stream(
        self, subject: str, payload: bytes, *, timeout_s: float
    ) -> AsyncGenerator[bytes, None]:
        """Raises as `request`, and LogUnavailable when a reply was lost on its way."""
        self._check_connected()
        async with self._open_inbox(".>") as channel:
            inbox = channel.subject.removesuffix(".>")
            replies = _Replies(
                self._client, channel, inbox=inbox, subject=subject, timeout_s=timeout_s
            ).read()
            finished = False
            try:
                await self._client.publish(subject, payload, reply=f"{inbox}.0")
                async with aclosing(replies):
                    async for reply in replies:
                        yield reply
                finished = True
            except (NoResponders, RemoteFailure):
                finished = True
                raise
            finally:
                if not finished and self._client.is_connected:
                    await self._client.publish(f"{CANCEL_PREFIX}{inbox}", b"")

    async def serve(self, subject: str, handler: Handler, *, queue: str) -> BusService:
        """At most REQUESTS_MAX at the same time; a further one is answered `overloaded`."""

        async def work(message: Msg) -> None:
            reply = await handler(message.subject, message.data)
            await self._client.publish(message.reply, reply)

        return await self._serve(subject, work, queue)

    async def serve_stream(self, subject: str, handler: StreamHandler, *, queue: str) -> BusService:
        """As `serve`. The handler's iterator is closed when the client stops reading."""

        async def work(message: Msg) -> None:
            inbox = message.reply.removesuffix(".0")
            count = 0
            replies = handler(message.subject, message.data)
            try:
                async for reply in replies:
                    await self._client.publish(f"{inbox}.{count}", reply)
                    count += 1
            finally:
                close = getattr(replies, "aclose", None)
                if close is not None:
                    await close()
            await self._client.publish(f"{inbox}.{END}.{count}", b"")

        return await self._serve(subject, work, queue)

    async def publish(self, subject: str, payload: bytes) -> None:
        """Raises LogUnavailable."""
        self._check_connected()
        await self._client.publish(subject, payload)

    async def listen(self, subject: str, handler: Callable[[str, bytes], None]) -> Listener:
        """An error in the handler is logged and does not end the listening."""

        async def hear(message: Msg) -> None:
            try:
                handler(message.subject, message.data)
            except Exception:
                _log.exception("listener failed", subject=message.subject)

        subscription = await self._client.subscribe(subject, cb=hear)
        await heard(self._client)
        return Listener(subscription)

    async def close(self) -> None:
        """End every service that was not stopped; what is under way is cancelled."""
        for service in tuple(self._services):
            await service.abandon()

    async def _serve(self, subject: str, work: Work, queue: str) -> BusService:
        service = BusService(self._client, work, forget=self._services.discard)
        self._services.add(service)
        await service.start(subject, queue)
        return service

    def _check_connected(self) -> None:
        if not self._client.is_connected:
            raise LogUnavailable("not connected")


class _Replies:
    """Of one stream, in their order."""

    def __init__(
        self, client: Client, channel: Channel, *, inbox: str, subject: str, timeout_s: float
    ) -> None:
        self._client = client
        self._channel = channel
        self._inbox = inbox
        self._subject = subject
        self._timeout_s = timeout_s

    async def read(self) -> AsyncGenerator[bytes, None]:
        count = 0
        loop = asyncio.get_running_loop()
        came_at = loop.time()
        while True:
            for message in await self._take(ends_at=came_at + self._timeout_s):
                place = message.subject[len(self._inbox) + 1 :]
                _check_success(self._subject, message)
                if place == f"{END}.{count}":
                    return
                if place == _ALIVE:
                    continue
                if place != str(count):
                    raise LogUnavailable(f"reply {count} was lost: {place} came")
                count += 1
                yield message.data
                came_at = loop.time()

    async def _take(self, *, ends_at: float) -> list[Msg]:
        """What has come, maybe only a sign of life. Raises what `JetStreamBus.stream` does."""
        if len(self._channel) > STREAM_BUFFER_MAX:
            raise ReaderTooSlow(self._subject, STREAM_BUFFER_MAX)
        left_s = ends_at - asyncio.get_running_loop().time()
        try:
            return await self._channel.take(_TAKE_MAX, timeout_s=min(SILENT_SECONDS, left_s))
        except TimeoutError as error:
            if left_s <= SILENT_SECONDS:
                raise RequestTimeout(self._subject, self._timeout_s) from error
        except Interrupted as error:
            raise LogUnavailable("the connection was lost while replies came") from error
        if await connected(self._client) and not len(self._channel):
            raise ServerDied(self._subject, self._timeout_s)
        return []


def _check_success(subject: str, reply: Msg) -> None:
    """Raises NoResponders, RemoteFailure."""
    headers = reply.headers
    if not headers:
        return
    if headers.get("Status") == "503":
        raise NoResponders(subject)
    code = headers.get(ERROR_CODE)
    if code is not None:
        raise RemoteFailure(subject, code, headers.get(ERROR_DETAIL, ""))

"""The serving side of the bus: requests under way, their bound, their signs of life, their end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from events.errors import LogUnavailable, RemoteFailure
from events.jetstream.answers import answered

REQUESTS_MAX: Final = 1_000
"""Requests one service handles at the same time."""
STOP_SECONDS: Final = 30.0
"""How long a service that stops waits for what is under way."""
ERROR_CODE: Final = "Nats-Service-Error-Code"
ERROR_DETAIL: Final = "Nats-Service-Error"
CANCEL_PREFIX: Final = "bus.cancel."
END: Final = "end"
ALIVE: Final = "alive"
BEAT_SECONDS: Final = 1.0
"""How often whoever waits for a request is told that it is under way."""
_HEARD_SECONDS: Final = 2.0
_DETAIL_CHARACTERS_MAX: Final = 1_000
_log = structlog.get_logger(__name__)

Work = Callable[[Msg], Awaitable[None]]


async def heard(client: Client) -> None:
    """Returns when the server has acted on everything we sent. Raises LogUnavailable.

    nats-py's own `flush` does not tell: its PING goes to the socket at once and overtakes what
    waits in the buffer (2.16.0), so a subscription could miss what comes right after and a drained
    one could drop a request. A request to nobody keeps its place in the line.
    """
    try:
        await answered(client.request(client.new_inbox(), timeout=_HEARD_SECONDS))
    except errors.NoRespondersError:
        return
    except errors.Error as error:
        raise LogUnavailable(f"not connected: {error!r}") from error


class Listener:
    """A subscription to what is published on a subject."""

    def __init__(self, subscription: Subscription) -> None:
        self._subscription = subscription

    async def stop(self) -> None:
        await self._subscription.unsubscribe()


class BusService:
    """A subject being served: one task per request."""

    def __init__(self, client: Client, work: Work, *, forget: Callable[[BusService], None]) -> None:
        self._client = client
        self._work = work
        self._forget = forget
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._beating: asyncio.Task[None] | None = None
        self._serving: Subscription | None = None
        self._cancels: Subscription | None = None

    async def start(self, subject: str, queue: str) -> None:
        """Returns when the server knows: a request sent afterwards finds us."""
        self._beating = asyncio.create_task(self._beat())
        self._cancels = await self._client.subscribe(f"{CANCEL_PREFIX}>", cb=self._cancel)
        self._serving = await self._client.subscribe(subject, queue=queue, cb=self._take)
        await heard(self._client)

    async def stop(self) -> None:
        """Take no further request; return when those under way are answered, or were told after
        STOP_SECONDS that they will not be."""
        await self._take_no_more()
        if self._under_way:
            await asyncio.wait(self._under_way.values(), timeout=STOP_SECONDS)
        await self._end()

    async def abandon(self) -> None:
        """Take no further request; those under way are told that they will not be answered."""
        await self._take_no_more()
        await self._end()

    async def _take_no_more(self) -> None:
        self._forget(self)
        serving, self._serving = self._serving, None
        if serving is None or self._client.is_closed:
            return
        try:
            if self._client.is_connected:
                await self._client._send_unsubscribe(serving._id)
            await heard(self._client)
            await serving.drain()  # type: ignore[no-untyped-call]
        except (LogUnavailable, errors.Error):
            if not self._client.is_closed:
                await serving.unsubscribe()  # without a connection nothing more can arrive

    async def _end(self) -> None:
        unanswered = dict(self._under_way)
        for task in unanswered.values():
            task.cancel()
        await asyncio.gather(*unanswered.values(), return_exceptions=True)
        for reply in unanswered:
            await self._fail(reply, "unavailable", "whoever had the request has stopped")
        if self._beating is not None:
            self._beating.cancel()
        cancels, self._cancels = self._cancels, None
        if cancels is not None and not self._client.is_closed:
            await cancels.unsubscribe()

    async def _take(self, message: Msg) -> None:
        if not message.reply:
            return
        if len(self._under_way) >= REQUESTS_MAX:
            await self._fail(message.reply, "overloaded", f"{REQUESTS_MAX} requests are under way")
            return
        task = asyncio.create_task(self._handle(message))
        self._under_way[message.reply] = task
        task.add_done_callback(lambda _: self._under_way.pop(message.reply, None))

    async def _handle(self, message: Msg) -> None:
        try:
            await self._work(message)
        except RemoteFailure as failure:
            await self._fail(message.reply, failure.code, failure.detail)
        except Exception as error:
            _log.exception("handler failed", subject=message.subject)
            await self._fail(message.reply, "internal", type(error).__name__)

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self._client.is_connected:
                for reply in tuple(self._under_way):
                    await self._client.publish(f"{reply}.{ALIVE}", b"")

    async def _fail(self, reply: str, code: str, detail: str) -> None:
        if self._client.is_closed:
            return
        headers = {ERROR_CODE: code, ERROR_DETAIL: detail[:_DETAIL_CHARACTERS_MAX]}
        await self._client.publish(reply, b"", headers=headers)

    async def _cancel(self, message: Msg) -> None:
        inbox = message.subject.removeprefix(CANCEL_PREFIX)
        task = self._under_way.get(f"{inbox}.0")
        if task is not None:
            task.cancel()

"""The asking side of the bus: requests whose one reply is waited for, while its server lives.

A server that has a request under way says so every BEAT_SECONDS, on `<reply>.alive`. Who hears
nothing for SILENT_SECONDS makes sure that the silence is not its own (it may have been held up, or
be cut off), and then knows that the server has died, long before the time of the request is over.

While we are cut off nothing is known of the server, and it is waited for.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from events.errors import LogUnavailable, RequestTimeout, ServerDied
from events.jetstream.answers import answered
from events.jetstream.serving import ALIVE, heard

SILENT_SECONDS: Final = 4.0
"""A death is known after this, or at most after twice as long."""


class _Waiting:
    """One request without its reply."""

    __slots__ = ("has_news", "reply")

    def __init__(self) -> None:
        self.reply: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self.has_news = False
        """Whether anything was heard of it lately."""


class Asking:
    """All requests of one connection share one subscription."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox: str | None = None
        self._tokens = itertools.count()
        self._waiting: dict[str, _Waiting] = {}

    async def ask(self, subject: str, payload: bytes, *, timeout_s: float) -> Msg:
        """The reply. Raises RequestTimeout, ServerDied, and what nats-py raises."""
        inbox = await self._opened()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + timeout_s
        token = str(next(self._tokens))
        waiting = self._waiting[token] = _Waiting()
        try:
            await answered(self._client.publish(subject, payload, reply=f"{inbox}.{token}"))
            while not waiting.reply.done():
                left_s = ends_at - loop.time()
                if left_s <= 0:
                    raise RequestTimeout(subject, timeout_s)
                await self._wait(waiting, subject, left_s=left_s)
            return waiting.reply.result()
        finally:
            del self._waiting[token]

    async def _wait(self, waiting: _Waiting, subject: str, *, left_s: float) -> None:
        """For the reply, or a while. Raises ServerDied."""
        waiting.has_news = False
        reconnects = self._client.stats["reconnects"]
        await asyncio.wait({waiting.reply}, timeout=min(left_s, SILENT_SECONDS))
        if waiting.has_news or left_s <= SILENT_SECONDS:
            return
        # A server that was cut off together with us may come back a little later than we.
        is_known = await connected(self._client) and reconnects == self._client.stats["reconnects"]
        if is_known and not waiting.has_news:
            raise ServerDied(subject, left_s)

    async def _opened(self) -> str:
        if self._inbox is None:
            self._inbox = inbox = str(self._client.new_inbox())
            await self._client.subscribe(f"{inbox}.>", cb=self._take)
        return self._inbox

    async def _take(self, message: Msg) -> None:
        token, _, rest = message.subject.rpartition(f"{self._inbox}.")[2].partition(".")
        waiting = self._waiting.get(token)
        if waiting is None:
            return
        waiting.has_news = True
        if rest != ALIVE and not waiting.reply.done():
            waiting.reply.set_result(message)


async def connected(client: Client) -> bool:
    """Whether there is a connection; then everything that was on its way to us has arrived."""
    try:
        await heard(client)
    except LogUnavailable:
        return False
    return True

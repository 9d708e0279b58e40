"""A subject's messages, taken in batches: what reads, subscriptions and streams wait on."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription


class Interrupted(Exception):
    """The connection was lost and is back: messages may be missing."""


class Channel:
    """Holds whatever arrives until it is taken. One taker.

    Nothing bounds what it holds: whoever opens one asks for a bounded number of messages.
    """

    def __init__(self, client: Client, registry: set[Channel], subject: str) -> None:
        self.subject = subject
        self._client = client
        self._registry = registry
        self._arrived: deque[Msg] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._interrupted = False
        self._subscription: Subscription | None = None

    async def __aenter__(self) -> Self:
        self._registry.add(self)
        self._subscription = await self._client.subscribe(self.subject, cb=self._arrive)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._registry.discard(self)
        if self._subscription is not None and not self._client.is_closed:
            await self._subscription.unsubscribe()

    def __len__(self) -> int:
        return len(self._arrived)

    def interrupt(self) -> None:
        """The taker gets what arrived before, then Interrupted."""
        self._interrupted = True
        self._wake()

    async def take(self, at_most: int, *, timeout_s: float) -> list[Msg]:
        """What is there, at least one message. Raises TimeoutError, Interrupted."""
        if not self._arrived:
            await self._wait(timeout_s)
        if len(self._arrived) <= at_most:
            taken = list(self._arrived)
            self._arrived.clear()
            return taken
        return [self._arrived.popleft() for _ in range(at_most)]

    async def _wait(self, timeout_s: float) -> None:
        if not self._interrupted:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._waiter
            finally:
                self._waiter = None
        if not self._arrived:
            raise Interrupted

    async def _arrive(self, message: Msg) -> None:
        self._arrived.append(message)
        if self._waiter is not None:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

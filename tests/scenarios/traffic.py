"""Requests that go on beside a scenario, and what the windows have counted of them."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from events.catalogue.traffic import WindowObserved
from switchback.client import Client, Problem
from tests.system import System

COUNTED_SECONDS = 60.0
CLIENTS = 4


class Traffic:
    """Clients that ask without a pause, each time with a new key."""

    def __init__(self, client: Client, endpoint: str) -> None:
        self._client = client
        self._endpoint = endpoint
        self._keys = itertools.count()
        self.inputs: Any = "fine"
        """What is asked from now on."""
        self.answered: Counter[str] = Counter()
        """By version."""
        self.failed = 0

    async def ask(self) -> None:
        key = f"user-{next(self._keys)}"
        try:
            answer = await self._client.infer(self._endpoint, self.inputs, key=key)
        except Problem as problem:
            assert problem.code == "runtime_failed", problem
            self.failed += 1
        else:
            self.answered[answer.version] += 1

    async def ask_for_ever(self) -> None:
        while True:
            await self.ask()

    async def ask_times(self, requests: int) -> None:
        """So many, a few at once."""
        left = iter(range(requests))

        async def some() -> None:
            for _ in left:
                await self.ask()

        await asyncio.gather(*(some() for _ in range(CLIENTS)))


@asynccontextmanager
async def traffic(client: Client, endpoint: str) -> AsyncIterator[Traffic]:
    """For as long as the block lasts; what a client raises ends the test."""
    found = Traffic(client, endpoint)
    async with asyncio.TaskGroup() as tasks:
        asking = [tasks.create_task(found.ask_for_ever()) for _ in range(CLIENTS)]
        yield found
        for task in asking:
            task.cancel()


class Counted(msgspec.Struct):
    """What the windows of an endpoint add up to."""

    requests: int = 0
    compared: int = 0


async def counted(system: System, endpoint: str, *, requests: int = 0, compared: int = 0) -> None:
    """Return when the windows of the endpoint hold so many requests and compared copies."""
    total = Counted()
    subject = f"obs.*.traffic.{endpoint}"
    async with asyncio.timeout(COUNTED_SECONDS):
        async for recorded in system.process.jetstream.traffic.subscribe(subject):
            assert isinstance(recorded.event, WindowObserved)
            total.requests += sum(seen.requests for seen in recorded.event.versions.values())
            total.compared += sum(seen.compared for seen in recorded.event.shadows.values())
            if total.requests >= requests and total.compared >= compared:
                return

"""A gateway for tests: its versions do what a test says, and its windows tell what was counted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from engine.agreement import Function
from events.catalogue.nodes import VersionRef
from events.catalogue.traffic import WindowObserved
from events.memory import MemoryLog
from handlers.comparators import NO_FUNCTIONS
from handlers.executions import (
    Chunk,
    DeadlineExceeded,
    Executed,
    Execution,
    NotServed,
    VersionFailed,
)
from handlers.gateway import Gateway, Inference
from handlers.streaming import Stream
from handlers.traffic.windows import Windows
from tests.handlers.passing import Seconds, next_second
from tests.handlers.world import World

SECRET = b"a secret of thirty-two bytes ...."
LONG_SECONDS = 30.0

Behaviour = Callable[[VersionRef, Execution], Awaitable[Executed]]
Streamed = Callable[[], AsyncIterator[Any]]


class FakeExecutor:
    """Does per version what the test says; serves nothing else."""

    def __init__(self, **behaviours: Behaviour) -> None:
        self.behaviours = dict(behaviours)
        self.asked: list[str] = []
        self.executions: list[Execution] = []
        self.streams: dict[str, Streamed] = {}
        self.closed: list[str] = []
        """Versions whose streams have ended, however they did."""

    async def execute(self, wanted: VersionRef, execution: Execution) -> Executed:
        self.asked.append(wanted.version)
        self.executions.append(execution)
        behaviour = self.behaviours.get(wanted.version)
        if behaviour is None:
            raise NotServed(f"no node serves {wanted}")
        return await behaviour(wanted, execution)

    async def stream(self, wanted: VersionRef, execution: Execution) -> AsyncGenerator[Chunk, None]:
        self.asked.append(wanted.version)
        self.executions.append(execution)
        streamed = self.streams.get(wanted.version)
        if streamed is None:
            raise NotServed(f"no node serves {wanted}")
        try:
            async for outputs in streamed():
                yield outputs if isinstance(outputs, Chunk) else told(outputs)
        finally:
            self.closed.append(wanted.version)


def told(outputs: Any, *, is_followed: bool = False) -> Chunk:
    return Chunk(outputs=outputs, runtime_ms=1.0, is_followed=is_followed)


async def answers(wanted: VersionRef, execution: Execution) -> Executed:
    return Executed(outputs={"by": wanted.version, "got": execution.inputs}, runtime_ms=1.0)


async def fails(wanted: VersionRef, execution: Execution) -> Executed:
    raise VersionFailed("boom")


async def is_late(wanted: VersionRef, execution: Execution) -> Executed:
    raise DeadlineExceeded("too late")


def says(outputs: Any) -> Behaviour:
    """A version with one answer."""

    async def behave(wanted: VersionRef, execution: Execution) -> Executed:
        return Executed(outputs=outputs, runtime_ms=1.0)

    return behave


class Held:
    """A version that answers when it is let."""

    def __init__(self, outputs: Any = None) -> None:
        self.outputs = outputs
        self.let = asyncio.Event()
        self.begun = 0
        self.ended: list[str] = []

    async def __call__(self, wanted: VersionRef, execution: Execution) -> Executed:
        self.begun += 1
        try:
            await self.let.wait()
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        self.ended.append("answered")
        return Executed(outputs=self.outputs, runtime_ms=0.0)


class Rig:
    """A gateway whose executors do as they are told."""

    def __init__(
        self, world: World, *executors: Any, comparators: Mapping[str, Function] = NO_FUNCTIONS
    ) -> None:
        self.world = world
        self.clock = Seconds()
        self.log = MemoryLog()
        self.windows = Windows(gateway="g1", log=self.log, clock=self.clock)
        self.gateway = Gateway(
            routing=world.routing,
            executors=executors,
            windows=self.windows,
            receipt_secret=SECRET,
            comparators=comparators,
            clock=self.clock,
        )

    async def infer(
        self,
        *,
        endpoint: str = "chat",
        key: str | None = "user-1",
        deadline_s: float = LONG_SECONDS,
        attributes: dict[str, str] | None = None,
        request_id: str = "r1",
    ) -> Inference:
        return await self.gateway.infer(
            "acme",
            endpoint=endpoint,
            inputs={"x": 1},
            key=key,
            attributes=attributes or {},
            parameters={"p": 2},
            request_id=request_id,
            deadline_s=deadline_s,
        )

    def stream(
        self, *, key: str | None = "user-1", request_id: str = "r1"
    ) -> AbstractAsyncContextManager[Stream]:
        return self.gateway.stream(
            "acme",
            endpoint="chat",
            inputs={"prompt": "Once"},
            key=key,
            attributes={},
            parameters={},
            request_id=request_id,
            deadline_s=LONG_SECONDS,
        )

    async def next_second(self) -> list[WindowObserved]:
        """The windows of the second that is over now, in order of their policies."""
        told = len(self.log._recorded)
        await next_second(self.windows, self.clock)
        found = [recorded.event for recorded in self.log._recorded[told:]]
        assert all(isinstance(window, WindowObserved) for window in found)
        return sorted(found, key=lambda window: window.policy)

    async def outcomes(self) -> list[tuple[str, str]]:
        """(version, `answered` or problem code) for each request that ended in this second."""
        found: list[tuple[str, str]] = []
        for window in await self.next_second():
            for version, seen in window.versions.items():
                failed = sum(seen.errors.values())
                found += [(version, "answered")] * (seen.requests - failed)
                found += [(version, code) for code, n in seen.errors.items() for _ in range(n)]
        return found

    def under_way(self) -> dict[str, int]:
        """Version -> requests in flight."""
        return {version: count for _, version, count in self.windows.in_flight() if count}

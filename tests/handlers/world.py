"""A log in memory, folded as it grows, and the shortest way to put something on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from engine.decisions import endpoint, model, node
from engine.decisions.policy import mentions
from events import EntityId, Metadata, Position
from events.catalogue.endpoints import Policy
from events.catalogue.nodes import VersionRef
from events.memory import MemoryLog
from handlers.commands import CommandHandler
from handlers.following import Follower
from handlers.routing import Routing
from tests.handlers.fakes import FakeBus, FakeClock, FakeLeases, FakeTimers

CHAT = EntityId("acme", "endpoint", "chat")
FRAUD = EntityId("acme", "model", "fraud")
RUNTIMES = frozenset({"echo"})
DECIDERS: dict[str, Any] = {
    "endpoint": endpoint.DECIDER,
    "model": model.DECIDER,
    "node": node.DECIDER,
}
SOON_SECONDS = 10.0
"""No test waits so long: it is when a test that would never end fails."""


def node_entity(node_id: str) -> EntityId:
    return EntityId("system", "node", node_id)


def ref(version: str) -> VersionRef:
    return VersionRef(tenant="acme", model="fraud", version=version)


class World:
    """One log, one fold, and the ports in memory."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.routing = Routing()
        self.commands = CommandHandler(self.log)
        self.bus = FakeBus()
        self.leases = FakeLeases()
        self.timers = FakeTimers()
        self.now = FakeClock()

    async def do(self, entity: EntityId, command: Any, *, at: datetime | None = None) -> Position:
        """Decide and append; returns once it is folded."""
        metadata = Metadata(time=at or self.now(), actor="test")
        decider = DECIDERS[entity.aggregate]
        outcome = await self.commands.handle(decider, entity, command, metadata=metadata)
        await self.routing.reach(outcome.position)
        return outcome.position

    async def register(self, *versions: str, **config: Any) -> None:
        await self.do(FRAUD, model.RegisterModel(name="fraud"))
        for version in versions:
            await self.do(
                FRAUD,
                model.RegisterVersion(
                    version=version, runtime="echo", config=config, runtimes=RUNTIMES
                ),
            )

    async def join(self, node_id: str, *versions: str) -> None:
        await self.do(
            node_entity(node_id), node.Join(memory_budget_bytes=1_000_000, runtimes=("echo",))
        )
        for version in versions:
            await self.loaded(node_id, version)

    async def loaded(self, node_id: str, version: str) -> Position:
        report = node.ReportLoaded(version=ref(version), memory_bytes=10, load_ms=1.0)
        return await self.do(node_entity(node_id), report)

    async def unloaded(self, node_id: str, version: str) -> Position:
        return await self.do(
            node_entity(node_id), node.ReportUnloaded(version=ref(version), reason="evicted")
        )

    async def load_failed(self, node_id: str, version: str) -> Position:
        report = node.ReportLoadFailed(version=ref(version), reason="runtime", detail="boom")
        return await self.do(node_entity(node_id), report)

    async def create(self, version: str) -> Position:
        everything = frozenset({version})
        command = endpoint.CreateEndpoint(
            model="fraud", version=version, registered=everything, resident=everything
        )
        return await self.do(CHAT, command)

    async def set_policy(self, policy: Policy) -> Position:
        versions = frozenset(version for _, version in mentions(policy))
        return await self.do(
            CHAT, endpoint.SetPolicy(policy=policy, registered=versions, resident=versions)
        )

    async def swap(self, to: str, swap_id: str, *, deadline: datetime | None = None) -> Position:
        command = endpoint.RequestSwap(
            swap_id=swap_id,
            to=to,
            deadline=deadline or self.now().replace(hour=23),
            registered=frozenset({to}),
        )
        return await self.do(CHAT, command)

    async def move(self, to: str, swap_id: str) -> Position:
        """A whole swap."""
        await self.swap(to, swap_id)
        done = endpoint.CompleteSwap(swap_id=swap_id, resident=frozenset({to}))
        return await self.do(CHAT, done)

    async def events(self, entity: EntityId = CHAT) -> list[Any]:
        return [recorded.event async for recorded in self.log.read(entity)]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return once it holds; looked at after every event."""
        async with asyncio.timeout(SOON_SECONDS):
            while not holds():
                await self.routing.reach(self.routing.position + 1)


@asynccontextmanager
async def opened() -> AsyncIterator[World]:
    """A world whose fold follows its log."""
    world = World()
    async with running(Follower(world.routing, world.log).run()):
        yield world


@asynccontextmanager
async def running(work: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """Work in the background; what it raises before the end fails the test."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


async def eventually(holds: Callable[[], bool]) -> None:
    """Return once it holds, where no event tells: every other task runs between two looks."""
    async with asyncio.timeout(SOON_SECONDS):
        while not holds():  # noqa: ASYNC110 - fakes have no events to wait for
            await asyncio.sleep(0.001)


async def turns(count: int = 20) -> None:
    """Let everything that is ready run."""
    for _ in range(count):
        await asyncio.sleep(0)

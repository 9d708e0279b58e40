"""Nodes for tests: their versions do what a test says, and the log tells what they did."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from engine.runtimes import LoadFailed, RuntimeFailed, RuntimeSettings
from events.catalogue.models import VersionRegistered
from handlers.executions import subject_of
from handlers.worker import NodeWorker
from tests.handlers.world import World, node_entity, ref

N1 = node_entity("n1")


class FakeRuntime:
    """A version as a test drives it."""

    def __init__(self, stage: Stage, version: str) -> None:
        self._stage = stage
        self._version = version
        self._crashed = asyncio.get_running_loop().create_future()
        self.closed = False

    async def load(self) -> None:
        self._stage.loads.append(self._version)
        self._stage.runtimes[self._version] = self
        gate = self._stage.gates.get(self._version)
        if gate is not None:
            await gate.wait()
        error = self._stage.errors.get(self._version)
        if error is not None:
            raise error

    async def warm(self) -> None:
        pass

    async def infer(self, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        if inputs == "fail":
            raise RuntimeFailed("boom")
        if inputs == "hang":
            await asyncio.Future()
        return {"by": self._version}

    async def memory_bytes(self) -> int:
        return self._stage.sizes.get(self._version, 100)

    async def failed(self) -> str:
        return await asyncio.shield(self._crashed)

    async def close(self) -> None:
        self.closed = True

    def crash(self) -> None:
        self._crashed.set_result("crashed as the test wants it")


class Stage:
    """What becomes of versions when they are loaded."""

    def __init__(self) -> None:
        self.loads: list[str] = []
        self.gates: dict[str, asyncio.Event] = {}
        self.errors: dict[str, LoadFailed] = {}
        self.sizes: dict[str, int] = {}
        self.runtimes: dict[str, FakeRuntime] = {}

    def create(self, registered: VersionRegistered, _settings: RuntimeSettings) -> FakeRuntime:
        return FakeRuntime(self, registered.version)


def a_worker(world: World, *, node_id: str = "n1", holder: str = "p1") -> NodeWorker:
    return NodeWorker(
        node_id=node_id,
        holder=holder,
        budget_bytes=1_000,
        runtimes=RuntimeSettings(),
        routing=world.routing,
        commands=world.commands,
        bus=world.bus,
        leases=world.leases,
        now=world.now,
    )


def serves(world: World, version: str) -> bool:
    return subject_of(ref(version)) in world.bus.subjects


def holds(world: World, version: str) -> bool:
    state = world.routing.nodes.get("n1")
    return state is not None and ref(version) in state.resident


async def told(world: World, kind: type, version: str | None = None) -> list[Any]:
    return [
        event
        for event in await world.events(N1)
        if isinstance(event, kind) and (version is None or event.version == ref(version))
    ]


async def joined(world: World) -> None:
    state = world.routing.nodes.get
    await world.until(lambda: state("n1") is not None and state("n1").status == "joined")

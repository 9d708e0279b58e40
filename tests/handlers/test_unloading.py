"""A version that somebody asked to be gone: from memory, from the bus and on the log."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from engine.decisions import node
from engine.runtimes import LoadFailed
from events import LogUnavailable
from events.catalogue.nodes import VersionLoadFailed, VersionUnloaded
from events.errors import RemoteFailure
from handlers import worker as module
from handlers.nodes import LoadRefused, Nodes, UnloadRefused
from handlers.worker import UnloadRequest, unload_subject
from tests.handlers.nodes import Stage, a_worker, holds, joined, serves, told
from tests.handlers.world import World, eventually, ref, running


def nodes_of(world: World) -> Nodes:
    return Nodes(routing=world.routing, bus=world.bus)


async def loaded(world: World, version: str) -> None:
    await joined(world)
    await world.routing.reach(await nodes_of(world).ensure_resident([ref(version)], position=1))
    assert holds(world, version)


async def test_a_version_is_gone_from_memory_from_the_bus_and_on_the_log(
    staged: World, stage: Stage
):
    async with running(a_worker(staged).run()):
        await loaded(staged, "3.0.0")
        position = await nodes_of(staged).unload(ref("3.0.0"), position=1)
        await staged.routing.reach(position)
        assert not holds(staged, "3.0.0")
        assert not serves(staged, "3.0.0")
        assert stage.runtimes["3.0.0"].closed
    [unloaded] = await told(staged, VersionUnloaded, "3.0.0")
    assert unloaded.reason == "requested"


async def test_a_version_that_is_not_there_is_gone_already(staged: World):
    async with running(a_worker(staged).run()):
        await joined(staged)
        await nodes_of(staged).unload(ref("3.0.0"), position=1)
    assert await told(staged, VersionUnloaded) == []


async def test_without_nodes_there_is_nothing_to_unload(staged: World):
    assert await nodes_of(staged).unload(ref("3.0.0"), position=7) == 7


async def test_it_can_be_loaded_again(staged: World, stage: Stage):
    async with running(a_worker(staged).run()):
        for _ in range(3):
            await loaded(staged, "3.0.0")
            position = await nodes_of(staged).unload(ref("3.0.0"), position=1)
            await staged.routing.reach(position)
            assert not holds(staged, "3.0.0")
    assert stage.loads == ["3.0.0"] * 3


async def test_a_node_keeps_what_an_endpoint_needs_whoever_asks(staged: World):
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
        with pytest.raises(UnloadRefused, match="an endpoint needs") as refused:
            await nodes_of(staged).unload(ref("1.0.0"), position=1)
        assert refused.value.code == "conflict"
        assert serves(staged, "1.0.0")


async def test_the_position_that_is_asked_with_is_folded_before_it_is_decided(
    staged: World, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "FOLLOW_SECONDS", 0.01)
    request = UnloadRequest(version=ref("3.0.0"), position=1_000_000)
    async with running(a_worker(staged).run()):
        await loaded(staged, "3.0.0")
        with pytest.raises(RemoteFailure) as failure:
            await staged.bus.request(
                unload_subject("n1"), msgspec.msgpack.encode(request), timeout_s=5.0
            )
        assert failure.value.code == "unavailable"
        assert serves(staged, "3.0.0")


async def test_a_load_under_way_is_ended_and_is_no_failure(staged: World, stage: Stage):
    stage.gates["3.0.0"] = asyncio.Event()
    nodes = nodes_of(staged)
    async with running(a_worker(staged).run()):
        await joined(staged)
        loading = asyncio.create_task(nodes.ensure_resident([ref("3.0.0")], position=1))
        await eventually(lambda: stage.loads == ["3.0.0"])
        await nodes.unload(ref("3.0.0"), position=1)
        with pytest.raises(LoadRefused, match="unloaded before it was ready"):
            await loading
        assert stage.runtimes["3.0.0"].closed
    assert await told(staged, VersionLoadFailed) == []


async def test_a_log_that_cannot_be_told_makes_it_no_success(
    staged: World, monkeypatch: pytest.MonkeyPatch
):
    real, away = staged.commands.handle, [True]

    async def handle(decider: Any, entity: Any, command: Any, **more: Any) -> Any:
        if isinstance(command, node.ReportUnloaded) and away:
            raise LogUnavailable("away")
        return await real(decider, entity, command, **more)

    monkeypatch.setattr(staged.commands, "handle", handle)
    async with running(a_worker(staged).run()):
        await loaded(staged, "3.0.0")
        with pytest.raises(UnloadRefused, match="away") as refused:
            await nodes_of(staged).unload(ref("3.0.0"), position=1)
        assert refused.value.code == "unavailable"
        away.clear()
        position = await nodes_of(staged).unload(ref("3.0.0"), position=1)
        await staged.routing.reach(position)
        assert not holds(staged, "3.0.0")


async def test_every_node_is_asked_and_one_that_does_not_answer_is_told_of(staged: World):
    async with running(a_worker(staged).run()):
        await loaded(staged, "3.0.0")
        await staged.join("n2", "3.0.0")
        with pytest.raises(UnloadRefused, match="does not answer") as refused:
            await nodes_of(staged).unload(ref("3.0.0"), position=1)
        assert refused.value.code == "unavailable"
        await staged.until(lambda: not holds(staged, "3.0.0"))


async def test_a_version_that_failed_to_load_is_unloaded_all_the_same(staged: World, stage: Stage):
    stage.errors["3.0.0"] = LoadFailed("memory", "too large")
    nodes = nodes_of(staged)
    async with running(a_worker(staged).run()):
        await joined(staged)
        with pytest.raises(LoadRefused, match="too large"):
            await nodes.ensure_resident([ref("3.0.0")], position=1)
        await nodes.unload(ref("3.0.0"), position=1)
    assert await told(staged, VersionUnloaded) == []

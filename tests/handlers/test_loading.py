"""What a node loads, serves and tries again, on ports in memory and real decisions."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from engine.decisions import endpoint, model, node
from engine.runtimes import LoadFailed
from events import LogUnavailable
from events.catalogue.nodes import (
    VersionLoaded,
    VersionLoadFailed,
)
from events.errors import RemoteFailure
from handlers import loading
from handlers import worker as module
from handlers.executions import (
    BusExecutor,
    Execution,
)
from handlers.nodes import LoadRefused, Nodes, NoNodes
from handlers.worker import LoadRequest, control_subject
from tests.handlers.nodes import N1, Stage, a_worker, holds, joined, serves, told
from tests.handlers.world import (
    CHAT,
    FRAUD,
    World,
    eventually,
    ref,
    running,
    turns,
)

# ---- what is needed is served


async def test_what_an_endpoint_needs_is_loaded_served_and_then_announced(staged: World):
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
        assert serves(staged, "1.0.0")
        executed = await BusExecutor(staged.bus).execute(
            ref("1.0.0"), Execution(inputs=1, parameters={}, timeout_s=5.0)
        )
        assert executed.outputs == {"by": "1.0.0"}
    [loaded] = await told(staged, VersionLoaded)
    assert loaded.memory_bytes == 100


async def test_it_answers_before_it_is_announced(staged: World, monkeypatch: pytest.MonkeyPatch):
    await staged.create("1.0.0")
    seen: list[bool] = []
    real = staged.commands.handle

    async def handle(decider: Any, entity: Any, command: Any, **more: Any) -> Any:
        if isinstance(command, node.ReportLoaded):
            seen.append(serves(staged, "1.0.0"))
        return await real(decider, entity, command, **more)

    monkeypatch.setattr(staged.commands, "handle", handle)
    async with running(a_worker(staged).run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
    assert seen == [True]


async def test_a_swaps_target_is_loaded_and_the_way_back_is_kept(staged: World):
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
        await staged.swap("2.0.0", "s1")
        await staged.until(lambda: holds(staged, "2.0.0"))
        await staged.do(
            CHAT, endpoint.CompleteSwap(swap_id="s1", resident=frozenset({"1.0.0", "2.0.0"}))
        )
        await turns()
        assert serves(staged, "1.0.0") and serves(staged, "2.0.0")
        await staged.do(CHAT, endpoint.RollBack())
        assert serves(staged, "1.0.0")


async def test_a_version_is_asked_for_by_anyone_and_loaded_once(staged: World, stage: Stage):
    stage.gates["3.0.0"] = asyncio.Event()
    nodes = Nodes(routing=staged.routing, bus=staged.bus)
    async with running(a_worker(staged).run()):
        await joined(staged)
        asking = [
            asyncio.create_task(nodes.ensure_resident([ref("3.0.0")], position=1)) for _ in range(3)
        ]
        await eventually(lambda: stage.loads == ["3.0.0"])
        stage.gates["3.0.0"].set()
        positions = await asyncio.gather(*asking)
        await staged.routing.reach(max(positions))
        assert holds(staged, "3.0.0")
        await nodes.ensure_resident([ref("3.0.0")], position=1)
    assert stage.loads == ["3.0.0"]


async def test_who_asks_is_told_why_it_cannot_be_loaded(staged: World, stage: Stage):
    stage.errors["3.0.0"] = LoadFailed("artifact", "it is not there")
    nodes = Nodes(routing=staged.routing, bus=staged.bus)
    with pytest.raises(NoNodes):
        await nodes.ensure_resident([ref("3.0.0")], position=1)
    async with running(a_worker(staged).run()):
        await joined(staged)
        with pytest.raises(LoadRefused, match="it is not there"):
            await nodes.ensure_resident([ref("3.0.0")], position=1)
        with pytest.raises(LoadRefused, match="not registered"):
            await nodes.ensure_resident([ref("9.9.9")], position=1)
    failures = await told(staged, VersionLoadFailed)
    assert [(f.version.version, f.reason) for f in failures] == [
        ("3.0.0", "artifact"),
        ("9.9.9", "artifact"),
    ]


async def test_a_node_that_fails_is_passed_over_while_another_succeeds(staged: World):
    await staged.join("n2")
    nodes = Nodes(routing=staged.routing, bus=staged.bus)
    async with running(a_worker(staged).run()):
        await joined(staged)
        position = await nodes.ensure_resident([ref("3.0.0")], position=1)
        await staged.routing.reach(position)
        assert holds(staged, "3.0.0")


async def test_a_node_behind_the_log_says_so(staged: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FOLLOW_SECONDS", 0.01)
    request = LoadRequest(version=ref("3.0.0"), position=1_000_000)
    async with running(a_worker(staged).run()):
        await joined(staged)
        with pytest.raises(RemoteFailure) as failure:
            await staged.bus.request(
                control_subject("n1"), msgspec.msgpack.encode(request), timeout_s=5.0
            )
    assert failure.value.code == "unavailable"


# ---- failed loads


async def test_a_failed_load_is_tried_again_after_a_while(
    staged: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 0.01)
    stage.errors["1.0.0"] = LoadFailed("runtime", "not yet")
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await eventually(lambda: len(stage.loads) >= 3)
        stage.errors.clear()
        await staged.until(lambda: holds(staged, "1.0.0"))
    assert len(await told(staged, VersionLoadFailed)) == len(stage.loads) - 1


async def test_a_failed_load_is_not_tried_again_before_that(staged: World, stage: Stage):
    stage.errors["1.0.0"] = LoadFailed("runtime", "not yet")
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await staged.until(lambda: bool(staged.routing.failures))
        await staged.join("n2")
        await staged.do(FRAUD, model.MoveAlias(alias="prod", version="2.0.0"))
        await turns(50)
    assert stage.loads == ["1.0.0"]


async def test_a_new_swap_has_a_failed_version_tried_at_once(staged: World, stage: Stage):
    stage.errors["2.0.0"] = LoadFailed("runtime", "not yet")
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await staged.swap("2.0.0", "s1")
        await staged.until(lambda: bool(staged.routing.failures))
        await staged.do(CHAT, endpoint.FailSwap(swap_id="s1", reason="load_failed"))
        await turns(50)
        assert stage.loads.count("2.0.0") == 1
        stage.errors.clear()
        await staged.swap("2.0.0", "s2")
        await staged.until(lambda: holds(staged, "2.0.0"))


async def test_a_failure_that_could_not_be_told_is_tried_again_though_nothing_happens(
    staged: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 0.01)
    stage.errors["1.0.0"] = LoadFailed("runtime", "not yet")
    real, away = staged.commands.handle, [True]

    async def handle(decider: Any, entity: Any, command: Any, **more: Any) -> Any:
        if isinstance(command, node.ReportLoadFailed) and away:
            raise LogUnavailable("away")
        return await real(decider, entity, command, **more)

    monkeypatch.setattr(staged.commands, "handle", handle)
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await eventually(lambda: len(stage.loads) >= 2)
        away.clear()
        stage.errors.clear()
        await staged.until(lambda: holds(staged, "1.0.0"))


async def test_a_retry_that_takes_long_keeps_the_node_idle(
    staged: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 0.05)
    stage.errors["1.0.0"] = LoadFailed("runtime", "not yet")
    await staged.create("1.0.0")
    a_node = a_worker(staged)
    follow, followed = a_node._loader.follow, [0]

    async def counted() -> None:
        followed[0] += 1
        await follow()

    monkeypatch.setattr(a_node._loader, "follow", counted)
    async with running(a_node.run()):
        await staged.until(lambda: bool(staged.routing.failures))
        stage.gates["1.0.0"] = asyncio.Event()
        await eventually(lambda: len(stage.loads) == 2)
        before = followed[0]
        await turns(500)
        assert followed[0] - before <= 2


async def test_a_draining_node_that_could_not_load_something_is_idle(
    staged: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 0.0)
    stage.errors["1.0.0"] = LoadFailed("runtime", "never")
    await staged.create("1.0.0")
    a_node = a_worker(staged)
    unload, unloaded = a_node._loader.unload_all, [0]

    async def counted() -> None:
        unloaded[0] += 1
        await unload()

    monkeypatch.setattr(a_node._loader, "unload_all", counted)
    async with running(a_node.run()):
        await staged.until(lambda: bool(staged.routing.failures))
        await staged.do(N1, node.Drain())
        await eventually(lambda: unloaded[0] >= 1)
        await turns(500)
        assert unloaded[0] <= 4

"""What a node lets go, and what it tells of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.decisions import endpoint, model, node
from events import LogUnavailable
from events.catalogue.nodes import (
    NodeJoined,
    NodeLeft,
    VersionLoaded,
    VersionLoadFailed,
    VersionUnloaded,
)
from handlers import loading
from handlers.executions import (
    Execution,
    subject_of,
)
from handlers.nodes import Nodes
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

# ---- loads that are ended


async def test_a_load_nobody_needs_any_more_is_ended_and_is_no_failure(staged: World, stage: Stage):
    stage.gates["2.0.0"] = asyncio.Event()
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await staged.swap("2.0.0", "s1")
        await eventually(lambda: "2.0.0" in stage.loads)
        await staged.do(CHAT, endpoint.FailSwap(swap_id="s1", reason="timeout"))
        await eventually(lambda: stage.runtimes["2.0.0"].closed)
        await turns(50)
    assert await told(staged, VersionLoadFailed) == []
    assert not await told(staged, VersionLoaded, "2.0.0")


async def test_a_load_that_was_ended_begins_again_when_a_swap_asks_for_it_at_that_moment(
    staged: World, stage: Stage
):
    stage.gates["2.0.0"] = asyncio.Event()
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        for number in range(5):
            await staged.swap("2.0.0", f"s{number}")
            await eventually(lambda at=number: stage.loads.count("2.0.0") == at + 1)
            fail = endpoint.FailSwap(swap_id=f"s{number}", reason="timeout")
            await staged.do(CHAT, fail)
        await staged.swap("2.0.0", "last")
        stage.gates["2.0.0"].set()
        await staged.until(lambda: holds(staged, "2.0.0"))
    assert await told(staged, VersionLoadFailed) == []


async def test_a_load_somebody_waits_for_goes_on_though_no_endpoint_needs_it(
    staged: World, stage: Stage
):
    stage.gates["3.0.0"] = asyncio.Event()
    nodes = Nodes(routing=staged.routing, bus=staged.bus)
    async with running(a_worker(staged).run()):
        await joined(staged)
        asking = asyncio.create_task(nodes.ensure_resident([ref("3.0.0")], position=1))
        await eventually(lambda: stage.loads == ["3.0.0"])
        await staged.do(FRAUD, model.MoveAlias(alias="prod", version="2.0.0"))
        await turns(50)
        stage.gates["3.0.0"].set()
        await asking
    assert stage.loads == ["3.0.0"]


# ---- departures and crashes


async def test_a_retired_version_leaves_and_the_log_is_told(staged: World):
    nodes = Nodes(routing=staged.routing, bus=staged.bus)
    async with running(a_worker(staged).run()):
        await joined(staged)
        await nodes.ensure_resident([ref("3.0.0")], position=1)
        await staged.do(FRAUD, model.RetireVersion(version="3.0.0", routed_by=frozenset()))
        await staged.until(lambda: not holds(staged, "3.0.0"))
        assert not serves(staged, "3.0.0")
    [gone] = await told(staged, VersionUnloaded)
    assert gone.reason == "retired"


async def test_a_version_that_crashed_is_told_and_loaded_again(
    staged: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "CRASHED_SECONDS", 0.01)
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
        stage.runtimes["1.0.0"].crash()
        await staged.until(lambda: not holds(staged, "1.0.0"))
        await staged.until(lambda: holds(staged, "1.0.0"))
        assert serves(staged, "1.0.0")
    [gone] = await told(staged, VersionUnloaded)
    assert gone.reason == "crashed"
    assert stage.loads == ["1.0.0", "1.0.0"]


async def test_a_version_that_crashes_before_it_is_served_is_never_announced(
    staged: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 0.01)
    await staged.create("1.0.0")
    a_node = a_worker(staged)
    crashes = [True]

    async def crash(subject: str) -> None:
        if subject == subject_of(ref("1.0.0")) and crashes:
            crashes.clear()
            stage.runtimes["1.0.0"].crash()
            await eventually(lambda: not a_node._residency.resident)

    staged.bus.while_serving = crash
    async with running(a_node.run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
        executed = await a_node.executor.execute(
            ref("1.0.0"), Execution(inputs=1, parameters={}, timeout_s=5.0)
        )
        assert executed.outputs == {"by": "1.0.0"}
    history = [type(event) for event in await staged.events(N1)]
    assert history == [NodeJoined, VersionLoadFailed, VersionLoaded, NodeLeft]


async def test_a_departure_that_could_not_be_told_is_told_later(
    staged: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    nodes = Nodes(routing=staged.routing, bus=staged.bus)
    real, away = staged.commands.handle, [True]

    async def handle(decider: Any, entity: Any, command: Any, **more: Any) -> Any:
        if isinstance(command, node.ReportUnloaded) and away:
            away.clear()
            raise LogUnavailable("away")
        return await real(decider, entity, command, **more)

    monkeypatch.setattr(staged.commands, "handle", handle)
    async with running(a_worker(staged).run()):
        await joined(staged)
        await nodes.ensure_resident([ref("3.0.0")], position=1)
        stage.runtimes["3.0.0"].crash()
        await eventually(lambda: not away)
        await staged.do(FRAUD, model.MoveAlias(alias="prod", version="2.0.0"))
        await staged.until(lambda: not holds(staged, "3.0.0"))

"""A node that joins, loses its lease, drains, leaves, and answers meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.decisions import endpoint, node
from engine.runtimes import LoadFailed
from events import LogUnavailable
from events.catalogue.nodes import (
    NodeLeft,
    VersionLoaded,
    VersionLoadFailed,
)
from handlers import loading
from handlers.executions import (
    BusExecutor,
    DeadlineExceeded,
    Execution,
    NotServed,
    VersionFailed,
    subject_of,
)
from handlers.nodes import Nodes
from tests.handlers.nodes import N1, Stage, a_worker, holds, joined, serves, told
from tests.handlers.world import (
    CHAT,
    World,
    eventually,
    ref,
    running,
    turns,
)

# ---- joining, leaving, draining


async def test_a_node_that_stops_says_so_lets_its_lease_go_and_serves_nothing(staged: World):
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
        token = staged.leases.live["node.n1"].token
        await eventually(lambda: staged.leases.live["node.n1"].token > token)
    assert isinstance((await staged.events(N1))[-1], NodeLeft)
    assert staged.bus.subjects == set()
    assert staged.leases.live == {}


async def test_the_lease_is_let_go_only_after_the_node_has_left(
    staged: World, monkeypatch: pytest.MonkeyPatch
):
    held: list[bool] = []
    real = staged.commands.handle

    async def handle(decider: Any, entity: Any, command: Any, **more: Any) -> Any:
        if isinstance(command, node.Leave):
            held.append("node.n1" in staged.leases.live)
        return await real(decider, entity, command, **more)

    monkeypatch.setattr(staged.commands, "handle", handle)
    async with running(a_worker(staged).run()):
        await joined(staged)
    assert held == [True]


async def test_a_node_that_is_told_to_stop_again_and_again_finishes_what_it_has(
    staged: World, stage: Stage
):
    await staged.create("1.0.0")
    a_node = a_worker(staged)
    running = asyncio.create_task(a_node.run())
    await staged.until(lambda: holds(staged, "1.0.0"))
    async with a_node._residency.lease(ref("1.0.0")):
        for _ in range(5):
            running.cancel()
            await turns(20)
        assert not stage.runtimes["1.0.0"].closed
        assert not running.done()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert stage.runtimes["1.0.0"].closed
    assert staged.leases.live == {}


async def test_two_processes_with_one_node_id_serve_one_after_the_other(staged: World):
    await staged.create("1.0.0")
    async with running(a_worker(staged, holder="p2").run()):
        async with running(a_worker(staged, holder="p1").run()):
            await staged.until(lambda: holds(staged, "1.0.0"))
            first = staged.leases.live["node.n1"].holder
        await eventually(
            lambda: (
                staged.leases.live.get("node.n1") is None
                or staged.leases.live["node.n1"].holder == "p2"
            )
        )
        await staged.until(lambda: holds(staged, "1.0.0") and serves(staged, "1.0.0"))
    assert first in ("p1", "p2")
    assert isinstance((await staged.events(N1))[-1], NodeLeft)


async def test_a_node_that_lost_its_lease_joins_again_and_announces_what_it_serves(
    staged: World, stage: Stage
):
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
        first = staged.routing.position
        staged.leases.take("node.n1", holder="another")
        await staged.do(N1, node.Lose())
        assert not holds(staged, "1.0.0")
        staged.leases.expire("node.n1")
        await staged.until(lambda: holds(staged, "1.0.0"))
        assert staged.routing.position > first
        nodes = Nodes(routing=staged.routing, bus=staged.bus)
        announced = await nodes._load(ref("1.0.0"), 1)
        assert announced > first
    assert stage.loads == ["1.0.0"]


async def test_a_node_declared_lost_though_it_lives_joins_again(staged: World):
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
        await staged.do(N1, node.Lose())
        await staged.until(lambda: holds(staged, "1.0.0"))


async def test_what_is_resident_but_not_served_is_not_announced(
    staged: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 3_600.0)
    await staged.create("1.0.0")
    a_node = a_worker(staged)

    async def away(subject: str) -> None:
        if subject == subject_of(ref("1.0.0")):
            await staged.bus.services[-1].stop()
            raise LogUnavailable("not connected")

    staged.bus.while_serving = away
    async with running(a_node.run()):
        await eventually(lambda: a_node._loader.is_decided(ref("1.0.0")))
        assert a_node._residency.resident
        await staged.do(N1, node.Lose())
        await joined(staged)
        await turns(50)
        assert not holds(staged, "1.0.0")


async def test_a_drained_node_lets_everything_go_and_loads_no_more(staged: World, stage: Stage):
    stage.gates["2.0.0"] = asyncio.Event()
    await staged.create("1.0.0")
    async with running(a_worker(staged).run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
        await staged.swap("2.0.0", "s1")
        await eventually(lambda: "2.0.0" in stage.loads)
        await staged.do(N1, node.Drain())
        await staged.until(lambda: not holds(staged, "1.0.0"))
        await eventually(lambda: stage.runtimes["2.0.0"].closed)
        await staged.do(CHAT, endpoint.FailSwap(swap_id="s1", reason="timeout"))
        await staged.swap("3.0.0", "s2")
        await turns(50)
    assert stage.loads == ["1.0.0", "2.0.0"]
    assert await told(staged, VersionLoadFailed) == []


async def test_a_size_that_changed_is_told_and_one_that_is_about_right_is_not(
    staged: World, stage: Stage
):
    await staged.create("1.0.0")
    a_node = a_worker(staged)
    async with running(a_node.run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
        for size in (105, 200, 201):
            stage.sizes["1.0.0"] = size
            await a_node._loader.measure()
    assert [event.memory_bytes for event in await told(staged, VersionLoaded)] == [100, 200]


async def test_settled_means_served_or_failed_and_waits_for_no_swap(staged: World, stage: Stage):
    stage.errors["2.0.0"] = LoadFailed("runtime", "never")
    stage.gates["3.0.0"] = asyncio.Event()
    await staged.create("1.0.0")
    other = type(CHAT)("acme", "endpoint", "search")
    two = frozenset({"2.0.0"})
    await staged.do(
        other,
        endpoint.CreateEndpoint(model="fraud", version="2.0.0", registered=two, resident=two),
    )
    await staged.swap("3.0.0", "s1")
    a_node = a_worker(staged)
    async with running(a_node.run()):
        assert await a_node.settled(within_s=5.0)
        assert holds(staged, "1.0.0") and not holds(staged, "2.0.0")


async def test_a_node_that_has_not_settled_in_time_says_so(staged: World, stage: Stage):
    stage.gates["1.0.0"] = asyncio.Event()
    await staged.create("1.0.0")
    a_node = a_worker(staged)
    async with running(a_node.run()):
        assert not await a_node.settled(within_s=0.02)


# ---- requests


@pytest.mark.parametrize(
    ("version", "inputs", "error"),
    [
        ("1.0.0", "fail", VersionFailed),
        ("1.0.0", "hang", DeadlineExceeded),
        ("3.0.0", "x", NotServed),
    ],
)
async def test_what_goes_wrong_is_the_same_in_this_process_and_over_the_bus(
    staged: World, version: str, inputs: str, error: type[Exception]
):
    await staged.create("1.0.0")
    a_node = a_worker(staged)
    execution = Execution(inputs=inputs, parameters={}, timeout_s=0.02)
    async with running(a_node.run()):
        await staged.until(lambda: holds(staged, "1.0.0"))
        for executor in (a_node.executor, BusExecutor(staged.bus)):
            with pytest.raises(error):
                await executor.execute(ref(version), execution)

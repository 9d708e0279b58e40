"""A node: what it loads, serves, tells and lets go, on ports in memory and real decisions."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from engine.decisions import endpoint, model, node
from engine.runtimes import LoadFailed, RuntimeFailed, RuntimeSettings
from events import LogUnavailable
from events.catalogue.models import VersionRegistered
from events.catalogue.nodes import (
    NodeJoined,
    NodeLeft,
    VersionLoaded,
    VersionLoadFailed,
    VersionUnloaded,
)
from events.errors import RemoteFailure
from handlers import loading
from handlers import worker as module
from handlers.executions import (
    BusExecutor,
    DeadlineExceeded,
    Execution,
    NotServed,
    VersionFailed,
    subject_of,
)
from handlers.nodes import LoadRefused, Nodes, NoNodes
from handlers.worker import LoadRequest, NodeWorker, control_subject
from tests.handlers.world import (
    CHAT,
    FRAUD,
    World,
    eventually,
    node_entity,
    opened,
    ref,
    running,
    turns,
)

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


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    found = Stage()
    monkeypatch.setattr(module, "create_runtime", found.create)
    monkeypatch.setattr(module, "REJOIN_SECONDS", 0.001)
    monkeypatch.setattr(loading, "ENDING_SECONDS", 0.001)
    return found


@pytest_asyncio.fixture
async def world(stage: Stage):
    async with opened() as found:
        await found.register("1.0.0", "2.0.0", "3.0.0")
        yield found


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


# ---- what is needed is served


async def test_what_an_endpoint_needs_is_loaded_served_and_then_announced(world: World):
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await world.until(lambda: holds(world, "1.0.0"))
        assert serves(world, "1.0.0")
        executed = await BusExecutor(world.bus).execute(
            ref("1.0.0"), Execution(inputs=1, parameters={}, timeout_s=5.0)
        )
        assert executed.outputs == {"by": "1.0.0"}
    [loaded] = await told(world, VersionLoaded)
    assert loaded.memory_bytes == 100


async def test_it_answers_before_it_is_announced(world: World, monkeypatch: pytest.MonkeyPatch):
    await world.create("1.0.0")
    seen: list[bool] = []
    real = world.commands.handle

    async def handle(decider: Any, entity: Any, command: Any, **more: Any) -> Any:
        if isinstance(command, node.ReportLoaded):
            seen.append(serves(world, "1.0.0"))
        return await real(decider, entity, command, **more)

    monkeypatch.setattr(world.commands, "handle", handle)
    async with running(a_worker(world).run()):
        await world.until(lambda: holds(world, "1.0.0"))
    assert seen == [True]


async def test_a_swaps_target_is_loaded_and_the_way_back_is_kept(world: World):
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await world.until(lambda: holds(world, "1.0.0"))
        await world.swap("2.0.0", "s1")
        await world.until(lambda: holds(world, "2.0.0"))
        await world.do(
            CHAT, endpoint.CompleteSwap(swap_id="s1", resident=frozenset({"1.0.0", "2.0.0"}))
        )
        await turns()
        assert serves(world, "1.0.0") and serves(world, "2.0.0")
        await world.do(CHAT, endpoint.RollBack())
        assert serves(world, "1.0.0")


async def test_a_version_is_asked_for_by_anyone_and_loaded_once(world: World, stage: Stage):
    stage.gates["3.0.0"] = asyncio.Event()
    nodes = Nodes(routing=world.routing, bus=world.bus)
    async with running(a_worker(world).run()):
        await joined(world)
        asking = [
            asyncio.create_task(nodes.ensure_resident([ref("3.0.0")], position=1)) for _ in range(3)
        ]
        await eventually(lambda: stage.loads == ["3.0.0"])
        stage.gates["3.0.0"].set()
        positions = await asyncio.gather(*asking)
        await world.routing.reach(max(positions))
        assert holds(world, "3.0.0")
        await nodes.ensure_resident([ref("3.0.0")], position=1)
    assert stage.loads == ["3.0.0"]


async def test_who_asks_is_told_why_it_cannot_be_loaded(world: World, stage: Stage):
    stage.errors["3.0.0"] = LoadFailed("artifact", "it is not there")
    nodes = Nodes(routing=world.routing, bus=world.bus)
    with pytest.raises(NoNodes):
        await nodes.ensure_resident([ref("3.0.0")], position=1)
    async with running(a_worker(world).run()):
        await joined(world)
        with pytest.raises(LoadRefused, match="it is not there"):
            await nodes.ensure_resident([ref("3.0.0")], position=1)
        with pytest.raises(LoadRefused, match="not registered"):
            await nodes.ensure_resident([ref("9.9.9")], position=1)
    failures = await told(world, VersionLoadFailed)
    assert [(f.version.version, f.reason) for f in failures] == [
        ("3.0.0", "artifact"),
        ("9.9.9", "artifact"),
    ]


async def test_a_node_that_fails_is_passed_over_while_another_succeeds(world: World):
    await world.join("n2")
    nodes = Nodes(routing=world.routing, bus=world.bus)
    async with running(a_worker(world).run()):
        await joined(world)
        position = await nodes.ensure_resident([ref("3.0.0")], position=1)
        await world.routing.reach(position)
        assert holds(world, "3.0.0")


async def test_a_node_behind_the_log_says_so(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "FOLLOW_SECONDS", 0.01)
    request = LoadRequest(version=ref("3.0.0"), position=1_000_000)
    async with running(a_worker(world).run()):
        await joined(world)
        with pytest.raises(RemoteFailure) as failure:
            await world.bus.request(
                control_subject("n1"), msgspec.msgpack.encode(request), timeout_s=5.0
            )
    assert failure.value.code == "unavailable"


# ---- failed loads


async def test_a_failed_load_is_tried_again_after_a_while(
    world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 0.01)
    stage.errors["1.0.0"] = LoadFailed("runtime", "not yet")
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await eventually(lambda: len(stage.loads) >= 3)
        stage.errors.clear()
        await world.until(lambda: holds(world, "1.0.0"))
    assert len(await told(world, VersionLoadFailed)) == len(stage.loads) - 1


async def test_a_failed_load_is_not_tried_again_before_that(world: World, stage: Stage):
    stage.errors["1.0.0"] = LoadFailed("runtime", "not yet")
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await world.until(lambda: bool(world.routing.failures))
        await world.join("n2")
        await world.do(FRAUD, model.MoveAlias(alias="prod", version="2.0.0"))
        await turns(50)
    assert stage.loads == ["1.0.0"]


async def test_a_new_swap_has_a_failed_version_tried_at_once(world: World, stage: Stage):
    stage.errors["2.0.0"] = LoadFailed("runtime", "not yet")
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await world.swap("2.0.0", "s1")
        await world.until(lambda: bool(world.routing.failures))
        await world.do(CHAT, endpoint.FailSwap(swap_id="s1", reason="load_failed"))
        await turns(50)
        assert stage.loads.count("2.0.0") == 1
        stage.errors.clear()
        await world.swap("2.0.0", "s2")
        await world.until(lambda: holds(world, "2.0.0"))


async def test_a_failure_that_could_not_be_told_is_tried_again_though_nothing_happens(
    world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 0.01)
    stage.errors["1.0.0"] = LoadFailed("runtime", "not yet")
    real, away = world.commands.handle, [True]

    async def handle(decider: Any, entity: Any, command: Any, **more: Any) -> Any:
        if isinstance(command, node.ReportLoadFailed) and away:
            raise LogUnavailable("away")
        return await real(decider, entity, command, **more)

    monkeypatch.setattr(world.commands, "handle", handle)
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await eventually(lambda: len(stage.loads) >= 2)
        away.clear()
        stage.errors.clear()
        await world.until(lambda: holds(world, "1.0.0"))


async def test_a_retry_that_takes_long_keeps_the_node_idle(
    world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 0.05)
    stage.errors["1.0.0"] = LoadFailed("runtime", "not yet")
    await world.create("1.0.0")
    a_node = a_worker(world)
    follow, followed = a_node._loader.follow, [0]

    async def counted() -> None:
        followed[0] += 1
        await follow()

    monkeypatch.setattr(a_node._loader, "follow", counted)
    async with running(a_node.run()):
        await world.until(lambda: bool(world.routing.failures))
        stage.gates["1.0.0"] = asyncio.Event()
        await eventually(lambda: len(stage.loads) == 2)
        before = followed[0]
        await turns(500)
        assert followed[0] - before <= 2


async def test_a_draining_node_that_could_not_load_something_is_idle(
    world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 0.0)
    stage.errors["1.0.0"] = LoadFailed("runtime", "never")
    await world.create("1.0.0")
    a_node = a_worker(world)
    unload, unloaded = a_node._loader.unload_all, [0]

    async def counted() -> None:
        unloaded[0] += 1
        await unload()

    monkeypatch.setattr(a_node._loader, "unload_all", counted)
    async with running(a_node.run()):
        await world.until(lambda: bool(world.routing.failures))
        await world.do(N1, node.Drain())
        await eventually(lambda: unloaded[0] >= 1)
        await turns(500)
        assert unloaded[0] <= 4


# ---- loads that are ended


async def test_a_load_nobody_needs_any_more_is_ended_and_is_no_failure(world: World, stage: Stage):
    stage.gates["2.0.0"] = asyncio.Event()
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await world.swap("2.0.0", "s1")
        await eventually(lambda: "2.0.0" in stage.loads)
        await world.do(CHAT, endpoint.FailSwap(swap_id="s1", reason="timeout"))
        await eventually(lambda: stage.runtimes["2.0.0"].closed)
        await turns(50)
    assert await told(world, VersionLoadFailed) == []
    assert not await told(world, VersionLoaded, "2.0.0")


async def test_a_load_that_was_ended_begins_again_when_a_swap_asks_for_it_at_that_moment(
    world: World, stage: Stage
):
    stage.gates["2.0.0"] = asyncio.Event()
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        for number in range(5):
            await world.swap("2.0.0", f"s{number}")
            await eventually(lambda at=number: stage.loads.count("2.0.0") == at + 1)
            fail = endpoint.FailSwap(swap_id=f"s{number}", reason="timeout")
            await world.do(CHAT, fail)
        await world.swap("2.0.0", "last")
        stage.gates["2.0.0"].set()
        await world.until(lambda: holds(world, "2.0.0"))
    assert await told(world, VersionLoadFailed) == []


async def test_a_load_somebody_waits_for_goes_on_though_no_endpoint_needs_it(
    world: World, stage: Stage
):
    stage.gates["3.0.0"] = asyncio.Event()
    nodes = Nodes(routing=world.routing, bus=world.bus)
    async with running(a_worker(world).run()):
        await joined(world)
        asking = asyncio.create_task(nodes.ensure_resident([ref("3.0.0")], position=1))
        await eventually(lambda: stage.loads == ["3.0.0"])
        await world.do(FRAUD, model.MoveAlias(alias="prod", version="2.0.0"))
        await turns(50)
        stage.gates["3.0.0"].set()
        await asking
    assert stage.loads == ["3.0.0"]


# ---- departures and crashes


async def test_a_retired_version_leaves_and_the_log_is_told(world: World):
    nodes = Nodes(routing=world.routing, bus=world.bus)
    async with running(a_worker(world).run()):
        await joined(world)
        await nodes.ensure_resident([ref("3.0.0")], position=1)
        await world.do(FRAUD, model.RetireVersion(version="3.0.0", routed_by=frozenset()))
        await world.until(lambda: not holds(world, "3.0.0"))
        assert not serves(world, "3.0.0")
    [gone] = await told(world, VersionUnloaded)
    assert gone.reason == "retired"


async def test_a_version_that_crashed_is_told_and_loaded_again(
    world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "CRASHED_SECONDS", 0.01)
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await world.until(lambda: holds(world, "1.0.0"))
        stage.runtimes["1.0.0"].crash()
        await world.until(lambda: not holds(world, "1.0.0"))
        await world.until(lambda: holds(world, "1.0.0"))
        assert serves(world, "1.0.0")
    [gone] = await told(world, VersionUnloaded)
    assert gone.reason == "crashed"
    assert stage.loads == ["1.0.0", "1.0.0"]


async def test_a_version_that_crashes_before_it_is_served_is_never_announced(
    world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 0.01)
    await world.create("1.0.0")
    a_node = a_worker(world)
    crashes = [True]

    async def crash(subject: str) -> None:
        if subject == subject_of(ref("1.0.0")) and crashes:
            crashes.clear()
            stage.runtimes["1.0.0"].crash()
            await eventually(lambda: not a_node._residency.resident)

    world.bus.while_serving = crash
    async with running(a_node.run()):
        await world.until(lambda: holds(world, "1.0.0"))
        executed = await a_node.execute(
            ref("1.0.0"), Execution(inputs=1, parameters={}, timeout_s=5.0)
        )
        assert executed.outputs == {"by": "1.0.0"}
    history = [type(event) for event in await world.events(N1)]
    assert history == [NodeJoined, VersionLoadFailed, VersionLoaded, NodeLeft]


async def test_a_departure_that_could_not_be_told_is_told_later(
    world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    nodes = Nodes(routing=world.routing, bus=world.bus)
    real, away = world.commands.handle, [True]

    async def handle(decider: Any, entity: Any, command: Any, **more: Any) -> Any:
        if isinstance(command, node.ReportUnloaded) and away:
            away.clear()
            raise LogUnavailable("away")
        return await real(decider, entity, command, **more)

    monkeypatch.setattr(world.commands, "handle", handle)
    async with running(a_worker(world).run()):
        await joined(world)
        await nodes.ensure_resident([ref("3.0.0")], position=1)
        stage.runtimes["3.0.0"].crash()
        await eventually(lambda: not away)
        await world.do(FRAUD, model.MoveAlias(alias="prod", version="2.0.0"))
        await world.until(lambda: not holds(world, "3.0.0"))


# ---- joining, leaving, draining


async def test_a_node_that_stops_says_so_lets_its_lease_go_and_serves_nothing(world: World):
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await world.until(lambda: holds(world, "1.0.0"))
        token = world.leases.live["node.n1"].token
        await eventually(lambda: world.leases.live["node.n1"].token > token)
    assert isinstance((await world.events(N1))[-1], NodeLeft)
    assert world.bus.subjects == set()
    assert world.leases.live == {}


async def test_the_lease_is_let_go_only_after_the_node_has_left(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    held: list[bool] = []
    real = world.commands.handle

    async def handle(decider: Any, entity: Any, command: Any, **more: Any) -> Any:
        if isinstance(command, node.Leave):
            held.append("node.n1" in world.leases.live)
        return await real(decider, entity, command, **more)

    monkeypatch.setattr(world.commands, "handle", handle)
    async with running(a_worker(world).run()):
        await joined(world)
    assert held == [True]


async def test_two_processes_with_one_node_id_serve_one_after_the_other(world: World):
    await world.create("1.0.0")
    async with running(a_worker(world, holder="p2").run()):
        async with running(a_worker(world, holder="p1").run()):
            await world.until(lambda: holds(world, "1.0.0"))
            first = world.leases.live["node.n1"].holder
        await eventually(
            lambda: (
                world.leases.live.get("node.n1") is None
                or world.leases.live["node.n1"].holder == "p2"
            )
        )
        await world.until(lambda: holds(world, "1.0.0") and serves(world, "1.0.0"))
    assert first in ("p1", "p2")
    assert isinstance((await world.events(N1))[-1], NodeLeft)


async def test_a_node_that_lost_its_lease_joins_again_and_announces_what_it_serves(
    world: World, stage: Stage
):
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await world.until(lambda: holds(world, "1.0.0"))
        first = world.routing.position
        world.leases.take("node.n1", holder="another")
        await world.do(N1, node.Lose())
        assert not holds(world, "1.0.0")
        world.leases.expire("node.n1")
        await world.until(lambda: holds(world, "1.0.0"))
        assert world.routing.position > first
        nodes = Nodes(routing=world.routing, bus=world.bus)
        announced = await nodes._load(ref("1.0.0"), 1)
        assert announced > first
    assert stage.loads == ["1.0.0"]


async def test_a_node_declared_lost_though_it_lives_joins_again(world: World):
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await world.until(lambda: holds(world, "1.0.0"))
        await world.do(N1, node.Lose())
        await world.until(lambda: holds(world, "1.0.0"))


async def test_what_is_resident_but_not_served_is_not_announced(
    world: World, stage: Stage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loading, "RELOAD_SECONDS", 3_600.0)
    await world.create("1.0.0")
    a_node = a_worker(world)

    async def away(subject: str) -> None:
        if subject == subject_of(ref("1.0.0")):
            await world.bus.services[-1].stop()
            raise LogUnavailable("not connected")

    world.bus.while_serving = away
    async with running(a_node.run()):
        await eventually(lambda: a_node._loader.is_decided(ref("1.0.0")))
        assert a_node._residency.resident
        await world.do(N1, node.Lose())
        await joined(world)
        await turns(50)
        assert not holds(world, "1.0.0")


async def test_a_drained_node_lets_everything_go_and_loads_nothing_more(world: World, stage: Stage):
    stage.gates["2.0.0"] = asyncio.Event()
    await world.create("1.0.0")
    async with running(a_worker(world).run()):
        await world.until(lambda: holds(world, "1.0.0"))
        await world.swap("2.0.0", "s1")
        await eventually(lambda: "2.0.0" in stage.loads)
        await world.do(N1, node.Drain())
        await world.until(lambda: not holds(world, "1.0.0"))
        await eventually(lambda: stage.runtimes["2.0.0"].closed)
        await world.do(CHAT, endpoint.FailSwap(swap_id="s1", reason="timeout"))
        await world.swap("3.0.0", "s2")
        await turns(50)
    assert stage.loads == ["1.0.0", "2.0.0"]
    assert await told(world, VersionLoadFailed) == []


async def test_a_size_that_changed_is_told_and_one_that_is_about_right_is_not(
    world: World, stage: Stage
):
    await world.create("1.0.0")
    a_node = a_worker(world)
    async with running(a_node.run()):
        await world.until(lambda: holds(world, "1.0.0"))
        for size in (105, 200, 201):
            stage.sizes["1.0.0"] = size
            await a_node._loader.measure()
    assert [event.memory_bytes for event in await told(world, VersionLoaded)] == [100, 200]


async def test_settled_means_served_or_failed_and_waits_for_no_swap(world: World, stage: Stage):
    stage.errors["2.0.0"] = LoadFailed("runtime", "never")
    stage.gates["3.0.0"] = asyncio.Event()
    await world.create("1.0.0")
    other = type(CHAT)("acme", "endpoint", "search")
    two = frozenset({"2.0.0"})
    await world.do(
        other,
        endpoint.CreateEndpoint(model="fraud", version="2.0.0", registered=two, resident=two),
    )
    await world.swap("3.0.0", "s1")
    a_node = a_worker(world)
    async with running(a_node.run()):
        assert await a_node.settled(within_s=5.0)
        assert holds(world, "1.0.0") and not holds(world, "2.0.0")


async def test_a_node_that_has_not_settled_in_time_says_so(world: World, stage: Stage):
    stage.gates["1.0.0"] = asyncio.Event()
    await world.create("1.0.0")
    a_node = a_worker(world)
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
    world: World, version: str, inputs: str, error: type[Exception]
):
    await world.create("1.0.0")
    a_node = a_worker(world)
    execution = Execution(inputs=inputs, parameters={}, timeout_s=0.02)
    async with running(a_node.run()):
        await world.until(lambda: holds(world, "1.0.0"))
        for executor in (a_node, BusExecutor(world.bus)):
            with pytest.raises(error):
                await executor.execute(ref(version), execution)

"""The reaction that ends swaps: each of them once, whoever runs it, however often."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from engine.decisions import endpoint, node
from events import EntityId, LogUnavailable
from events.catalogue.endpoints import Policy, SwapCompleted, SwapFailed
from events.memory import MemoryLog
from handlers.commands import CommandHandler
from handlers.following import Follower
from handlers.reactions import swaps as module
from handlers.reactions.swaps import Deadline, Swaps
from handlers.routing import Routing
from tests.handlers.world import CHAT, World, eventually, node_entity, opened, running, turns


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    async with opened() as found:
        await found.register("1.0.0", "2.0.0", "3.0.0")
        await found.join("n1", "1.0.0")
        await found.join("n2", "1.0.0")
        await found.create("1.0.0")
        yield found


def reaction(world: World, **other: Any) -> Swaps:
    parts = {
        "routing": world.routing,
        "commands": world.commands,
        "timers": world.timers,
        "now": world.now,
    }
    return Swaps(**(parts | other))


async def ended(world: World) -> list[Any]:
    return [e for e in await world.events() if isinstance(e, SwapCompleted | SwapFailed)]


def pending(world: World) -> bool:
    return bool(world.routing.swapping())


async def settled(world: World) -> list[Any]:
    """How swaps ended, once none is pending and the reaction has nothing left to do."""
    await world.until(lambda: not pending(world))
    await turns(50)
    return await ended(world)


async def test_a_swap_waits_for_every_serving_node(world: World):
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        await world.loaded("n1", "2.0.0")
        await turns(50)
        assert await ended(world) == []
        await world.loaded("n2", "2.0.0")
        [event] = await settled(world)
    assert isinstance(event, SwapCompleted)
    assert (event.swap_id, event.to_version) == ("s1", "2.0.0")


async def test_a_node_that_joins_meanwhile_is_waited_for_too(world: World):
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        await world.loaded("n1", "2.0.0")
        await world.join("n3")
        await world.loaded("n2", "2.0.0")
        await turns(50)
        assert await ended(world) == []
        await world.loaded("n3", "2.0.0")
        assert len(await settled(world)) == 1


@pytest.mark.parametrize("leave", [node.Drain(), node.Lose(), node.Leave()])
async def test_a_node_that_no_longer_serves_is_not_waited_for(world: World, leave):
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        await world.loaded("n1", "2.0.0")
        await world.do(node_entity("n2"), leave)
        [event] = await settled(world)
    assert isinstance(event, SwapCompleted)


async def test_without_any_node_a_swap_waits(world: World):
    async with running(reaction(world).run()):
        await world.do(node_entity("n1"), node.Lose())
        await world.do(node_entity("n2"), node.Lose())
        await world.swap("2.0.0", "s1")
        await turns(50)
        assert await ended(world) == []


async def test_a_load_that_fails_on_one_node_fails_the_swap_and_says_where(world: World):
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        await world.loaded("n1", "2.0.0")
        await world.load_failed("n2", "2.0.0")
        [event] = await settled(world)
    assert isinstance(event, SwapFailed)
    assert (event.reason, event.detail) == ("load_failed", "n2: runtime: boom")


async def test_a_failure_before_the_request_is_not_this_swaps(world: World):
    await world.load_failed("n1", "2.0.0")
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        await turns(50)
        assert await ended(world) == []
        await world.loaded("n1", "2.0.0")
        await world.loaded("n2", "2.0.0")
        [event] = await settled(world)
    assert isinstance(event, SwapCompleted)


async def test_a_failure_of_another_version_is_not_this_swaps(world: World):
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        await world.load_failed("n1", "3.0.0")
        await turns(50)
        assert await ended(world) == []


async def test_a_failure_of_a_node_that_is_gone_fails_nothing(world: World):
    await world.swap("2.0.0", "s1")
    await world.load_failed("n2", "2.0.0")
    await world.do(node_entity("n2"), node.Leave())
    await world.loaded("n1", "2.0.0")
    async with running(reaction(world).run()):
        [event] = await settled(world)
    assert isinstance(event, SwapCompleted)


async def test_a_load_that_failed_and_then_worked_completes_the_swap(world: World):
    await world.swap("2.0.0", "s1")
    await world.load_failed("n1", "2.0.0")
    await world.loaded("n1", "2.0.0")
    await world.loaded("n2", "2.0.0")
    async with running(reaction(world).run()):
        [event] = await settled(world)
    assert isinstance(event, SwapCompleted)


async def test_a_swap_fails_at_its_deadline(world: World):
    deadline = world.now() + timedelta(seconds=60)
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1", deadline=deadline)
        await eventually(lambda: bool(world.timers.pending))
        [(timer, (due, _))] = world.timers.pending.items()
        assert due == deadline
        world.timers.fire(timer)
        [event] = await settled(world)
    assert (event.swap_id, event.reason) == ("s1", "timeout")
    assert world.timers.handled == [timer]


async def test_a_deadline_that_passed_while_nobody_looked_is_noticed(world: World):
    await world.swap("2.0.0", "s1", deadline=world.now() + timedelta(seconds=60))
    world.now.at += timedelta(minutes=5)
    async with running(reaction(world).run()):
        [event] = await settled(world)
    assert event.reason == "timeout"


async def test_a_version_that_came_in_time_beats_a_deadline_nobody_noticed(world: World):
    await world.swap("2.0.0", "s1", deadline=world.now() + timedelta(seconds=60))
    await world.loaded("n1", "2.0.0")
    await world.loaded("n2", "2.0.0")
    world.now.at += timedelta(minutes=5)
    async with running(reaction(world).run()):
        [event] = await settled(world)
    assert isinstance(event, SwapCompleted)


async def test_a_wake_up_that_repeats_or_comes_too_late_changes_nothing(world: World):
    payload = msgspec.json.encode(Deadline(tenant="acme", endpoint="chat", swap_id="s1"))
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        world.timers.wake("swap.acme.one", payload)
        world.timers.wake("swap.acme.two", payload)
        [failed] = await settled(world)
        await world.swap("3.0.0", "s2")
        world.timers.wake("swap.acme.three", payload)
        await eventually(lambda: len(world.timers.handled) == 3)
        assert await ended(world) == [failed]
        assert [route.state.swap.swap_id for route in world.routing.swapping()] == ["s2"]


async def test_a_late_wake_up_of_one_swap_leaves_the_next_one_its_deadline(world: World):
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        await eventually(lambda: len(world.timers.pending) == 1)
        [first] = world.timers.pending
        await world.do(CHAT, endpoint.FailSwap(swap_id="s1", reason="load_failed"))
        await world.swap("3.0.0", "s2")
        await eventually(lambda: len(world.timers.pending) == 2)
        world.timers.fire(first)
        await eventually(lambda: world.timers.handled == [first])
        [second] = world.timers.pending
        world.timers.fire(second)
        *_, event = await settled(world)
    assert (event.swap_id, event.reason) == ("s2", "timeout")


async def test_a_swap_that_ended_leaves_no_timer(world: World):
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        await eventually(lambda: bool(world.timers.pending))
        await world.loaded("n1", "2.0.0")
        await world.loaded("n2", "2.0.0")
        await settled(world)
        await eventually(lambda: not world.timers.pending)


@pytest.mark.parametrize("payload", [b"", b"{}", b'{"tenant":"a.b","endpoint":"*","swap_id":"s"}'])
async def test_a_wake_up_that_is_no_deadline_is_put_aside(world: World, payload: bytes):
    async with running(reaction(world).run()):
        world.timers.wake("swap.acme.odd", payload)
        await eventually(lambda: world.timers.handled == ["swap.acme.odd"])
        await world.swap("2.0.0", "s1")
        await eventually(lambda: bool(world.timers.pending))


async def test_a_swap_superseded_by_a_policy_is_nobodys_any_more(world: World):
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        await eventually(lambda: bool(world.timers.pending))
        await world.set_policy(Policy(split={"1.0.0": 1.0, "2.0.0": 1.0}))
        await world.loaded("n1", "2.0.0")
        await world.loaded("n2", "2.0.0")
        [event] = await settled(world)
    assert event.reason == "superseded"


async def test_while_timers_are_away_nothing_is_decided_and_then_it_is(world: World):
    world.timers.away = True
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        await world.loaded("n1", "2.0.0")
        await world.loaded("n2", "2.0.0")
        await turns(50)
        assert await ended(world) == []
        world.timers.away = False
        [event] = await settled(world)
    assert isinstance(event, SwapCompleted)


async def test_two_reactors_that_overlap_have_one_effect(world: World):
    other = Routing()
    async with running(Follower(other, world.log).run()):
        mine = reaction(world)
        theirs = reaction(world, routing=other, commands=CommandHandler(world.log))
        async with running(mine.run()), running(theirs.run()):
            for number, (to, back) in enumerate([("2.0.0", "1.0.0")] * 5):
                for version in (to, back):
                    await world.swap(version, f"{number}-{version}")
                    await world.loaded("n1", version)
                    await world.loaded("n2", version)
                    await settled(world)
    found = await ended(world)
    assert all(isinstance(event, SwapCompleted) for event in found)
    assert len(found) == len({event.swap_id for event in found}) == 10


class Slow(MemoryLog):
    """Holds back what reactions append, before or after it is written."""

    def __init__(self) -> None:
        super().__init__()
        self.stop_before = False
        self.stop_after = False
        self.reached = asyncio.Event()

    async def append_all(self, appends: Any, *, metadata: Any = None) -> int:
        held = metadata is not None and metadata.actor == "reaction:swaps"
        if held and self.stop_before:
            self.reached.set()
            await asyncio.Future()
        position = await super().append_all(appends, metadata=metadata)
        if held and self.stop_after:
            self.reached.set()
            await asyncio.Future()
        return position


@pytest.mark.parametrize("where", ["stop_before", "stop_after"])
async def test_a_reactor_that_dies_around_its_append_is_taken_over_with_one_effect(where: str):
    log = Slow()
    world = World()
    world.log, world.commands = log, CommandHandler(log)
    async with running(Follower(world.routing, log).run()):
        await world.register("1.0.0", "2.0.0")
        await world.join("n1", "1.0.0", "2.0.0")
        await world.create("1.0.0")
        setattr(log, where, True)
        async with running(reaction(world, commands=CommandHandler(log)).run()):
            await world.swap("2.0.0", "s1")
            await asyncio.wait_for(log.reached.wait(), 5)
        setattr(log, where, False)
        async with running(reaction(world, commands=CommandHandler(log)).run()):
            [event] = await settled(world)
    assert isinstance(event, SwapCompleted)


class Failing(MemoryLog):
    """Away for reactions, as often as told."""

    failures = 0

    async def append_all(self, appends: Any, *, metadata: Any = None) -> int:
        if metadata is not None and metadata.actor == "reaction:swaps" and self.failures:
            self.failures -= 1
            raise LogUnavailable("away")
        return await super().append_all(appends, metadata=metadata)


async def test_an_append_that_fails_is_tried_again_without_another_event(monkeypatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    log = Failing()
    world = World()
    world.log, world.commands = log, CommandHandler(log)
    async with running(Follower(world.routing, log).run()):
        await world.register("1.0.0", "2.0.0")
        await world.join("n1", "1.0.0", "2.0.0")
        await world.create("1.0.0")
        log.failures = 3
        async with running(reaction(world).run()):
            await world.swap("2.0.0", "s1")
            [event] = await settled(world)
    assert log.failures == 0
    assert isinstance(event, SwapCompleted)


async def test_swaps_of_different_endpoints_do_not_wait_for_each_other(world: World):
    other = EntityId("acme", "endpoint", "search")
    everything = frozenset({"1.0.0", "3.0.0"})
    await world.do(
        other,
        endpoint.CreateEndpoint(
            model="fraud", version="1.0.0", registered=everything, resident=everything
        ),
    )
    async with running(reaction(world).run()):
        await world.swap("2.0.0", "s1")
        await world.do(
            other,
            endpoint.RequestSwap(
                swap_id="s2", to="3.0.0", deadline=world.now(), registered=everything
            ),
        )
        world.now.at -= timedelta(hours=1)
        await world.loaded("n1", "2.0.0")
        await world.loaded("n2", "2.0.0")
        await world.until(lambda: world.routing.routes["acme", "chat"].state.swap is None)
    assert isinstance((await ended(world))[0], SwapCompleted)

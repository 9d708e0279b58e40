"""Which nodes are lost, and which are not."""

from __future__ import annotations

import pytest_asyncio

from engine.decisions import node
from events import LogUnavailable
from events.catalogue.nodes import NodeLost
from handlers.reactions.liveness import Liveness
from tests.handlers.world import World, eventually, node_entity, opened, running, turns


@pytest_asyncio.fixture
async def world():
    async with opened() as found:
        await found.join("n1")
        await found.join("n2")
        yield found


def liveness(world: World):
    reaction = Liveness(
        routing=world.routing, commands=world.commands, leases=world.leases, now=world.now
    )
    return running(reaction.run())


async def looks(world: World, count: int) -> None:
    """So many further looks are over."""
    at = world.leases.looks + count
    await eventually(lambda: world.leases.looks > at)


async def lost(world: World) -> list[str]:
    return [
        node_id
        for node_id in ("n1", "n2")
        if any(isinstance(e, NodeLost) for e in await world.events(node_entity(node_id)))
    ]


async def test_a_node_that_holds_its_lease_is_never_lost(world: World):
    for node_id in ("n1", "n2"):
        world.leases.take(f"node.{node_id}", holder=node_id)
    async with liveness(world):
        await looks(world, 4)
    assert await lost(world) == []


async def test_a_node_without_a_lease_is_lost_after_two_looks(world: World):
    world.leases.take("node.n1", holder="n1")
    async with liveness(world):
        await eventually(lambda: world.leases.looks == 1)
        await turns()
        assert await lost(world) == []
        await world.until(lambda: world.routing.nodes["n2"].status == "lost")
        await looks(world, 2)
    assert await lost(world) == ["n2"]
    assert world.leases.looks >= 2


async def test_a_node_that_has_its_lease_again_at_the_second_look_is_not_lost(world: World):
    world.leases.take("node.n1", holder="n1")
    async with liveness(world):
        for _ in range(3):
            await looks(world, 0)
            world.leases.take("node.n2", holder="n2")
            await looks(world, 0)
            world.leases.expire("node.n2")
    assert await lost(world) == []


async def test_while_leases_cannot_be_seen_nobody_is_lost(world: World):
    world.leases.away = True
    async with liveness(world):
        await looks(world, 3)
        assert await lost(world) == []
        for node_id in ("n1", "n2"):
            world.leases.take(f"node.{node_id}", holder=node_id)
        world.leases.away = False
        await looks(world, 3)
    assert await lost(world) == []


async def test_a_node_that_left_or_is_lost_is_not_lost_again(world: World):
    await world.do(node_entity("n1"), node.Leave())
    await world.do(node_entity("n2"), node.Lose(reason="once"))
    async with liveness(world):
        await looks(world, 3)
    history = await world.events(node_entity("n2"))
    assert [e.reason for e in history if isinstance(e, NodeLost)] == ["once"]
    assert await lost(world) == ["n2"]


async def test_a_draining_node_that_dies_is_lost_too(world: World):
    world.leases.take("node.n1", holder="n1")
    await world.do(node_entity("n2"), node.Drain())
    async with liveness(world):
        await world.until(lambda: world.routing.nodes["n2"].status == "lost")


async def test_a_log_that_is_away_for_a_moment_only_puts_it_off(world: World, monkeypatch):
    world.leases.take("node.n1", holder="n1")
    real, failures = world.commands.handle, [LogUnavailable("away")] * 2

    async def handle(*args, **kwargs):
        if failures:
            raise failures.pop()
        return await real(*args, **kwargs)

    monkeypatch.setattr(world.commands, "handle", handle)
    async with liveness(world):
        await eventually(lambda: not failures)
        await eventually(lambda: world.routing.nodes["n2"].status == "lost")

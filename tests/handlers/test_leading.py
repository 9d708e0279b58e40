"""Leases: who leads, who is alive, who is told."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from engine.decisions import node
from events import LogUnavailable
from events.catalogue.nodes import NodeLost
from events.errors import LeaseLost
from handlers import gateways as gateways_module
from handlers.gateways import Gateways
from handlers.reactions.leader import keep, lead, let_go
from handlers.reactions.liveness import Liveness
from handlers.routing import Routing
from tests.handlers.fakes import FakeBus, FakeLeases
from tests.handlers.world import World, eventually, node_entity, opened, running, turns


class Work:
    """Work that is begun, ended and cancelled as a test sees it."""

    def __init__(self) -> None:
        self.begun = 0
        self.cancelled = 0
        self.end = asyncio.Event()
        self.error: BaseException | None = None

    async def __call__(self) -> None:
        self.begun += 1
        self.end.clear()
        try:
            await self.end.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            raise self.error


def leading(leases: FakeLeases, work: Work, *, holder: str = "a"):
    return running(lead(leases, "reaction.swaps", holder=holder, work=work))


async def test_work_begins_with_the_lease_and_not_before():
    leases, work = FakeLeases(), Work()
    leases.take("reaction.swaps", holder="b")
    async with leading(leases, work):
        await eventually(lambda: leases.live["reaction.swaps"].holder == "b")
        await turns()
        assert work.begun == 0
        leases.expire("reaction.swaps")
        await eventually(lambda: work.begun == 1)
        assert leases.live["reaction.swaps"].holder == "a"


async def test_two_who_try_do_the_work_once():
    leases, mine, theirs = FakeLeases(), Work(), Work()
    async with leading(leases, mine), leading(leases, theirs, holder="b"):
        await eventually(lambda: mine.begun + theirs.begun == 1)
        token = leases.live["reaction.swaps"].token
        await eventually(lambda: leases.live["reaction.swaps"].token > token + 3)
        assert mine.begun + theirs.begun == 1


async def test_work_is_cancelled_when_the_lease_is_lost():
    leases, work = FakeLeases(), Work()
    async with leading(leases, work):
        await eventually(lambda: work.begun == 1)
        leases.take("reaction.swaps", holder="b")
        await eventually(lambda: work.cancelled == 1)
        await turns()
        assert leases.live["reaction.swaps"].holder == "b"
        leases.expire("reaction.swaps")
        await eventually(lambda: work.begun == 2)


async def test_work_is_cancelled_once_the_log_was_away_for_longer_than_the_lease_lasts():
    leases, work = FakeLeases(), Work()
    async with leading(leases, work):
        await eventually(lambda: work.begun == 1)
        leases.away = True
        await eventually(lambda: work.cancelled == 1)
        leases.away = False
        await eventually(lambda: work.begun == 2)


@pytest.mark.parametrize("error", [RuntimeError("boom"), asyncio.CancelledError(), None])
async def test_work_that_ends_is_begun_again(error):
    leases, work = FakeLeases(), Work()
    work.error = error
    async with leading(leases, work):
        await eventually(lambda: work.begun == 1)
        work.end.set()
        await eventually(lambda: work.begun == 2)
    assert work.cancelled == 1


async def test_who_stops_leading_lets_the_next_one_begin_at_once():
    leases, work = FakeLeases(), Work()
    async with leading(leases, work):
        await eventually(lambda: work.begun == 1)
        renewed = leases.live["reaction.swaps"].token
        await eventually(lambda: leases.live["reaction.swaps"].token > renewed)
    assert work.cancelled == 1
    assert leases.live == {}


async def test_letting_go_leaves_the_lease_of_another_alone():
    leases = FakeLeases()
    leases.take("reaction.swaps", holder="b")
    await let_go(leases, "reaction.swaps", holder="a")
    assert leases.live["reaction.swaps"].holder == "b"
    leases.away = True
    await let_go(leases, "reaction.swaps", holder="b")


async def test_a_lease_outlasts_a_log_that_is_away_for_a_moment():
    leases = FakeLeases(ttl_s=0.2)
    lease = await leases.acquire("node.n1", holder="a")
    async with running(keep(leases, lease)) as keeping:
        leases.away = True
        renewals = leases._token
        await asyncio.wait([keeping], timeout=leases.ttl_s / 2)
        leases.away = False
        await eventually(lambda: leases._token > renewals)
        assert not keeping.done()


async def test_keeping_ends_when_another_has_the_lease():
    leases = FakeLeases()
    lease = await leases.acquire("node.n1", holder="a")
    leases.take("node.n1", holder="b")
    with pytest.raises(LeaseLost):
        await keep(leases, lease)


# ---- liveness


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


# ---- gateways


class Cluster:
    """Gateways that share a bus and leases, each with its own fold."""

    def __init__(self) -> None:
        self.bus = FakeBus()
        self.leases = FakeLeases()
        self.routings = {name: Routing() for name in ("g1", "g2")}

    def gateway(self, name: str) -> Gateways:
        return Gateways(
            gateway_id=name, routing=self.routings[name], bus=self.bus, leases=self.leases
        )


@pytest_asyncio.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gateways_module, "ASK_SECONDS", 0.01)
    return Cluster()


async def test_applied_waits_for_every_live_gateway(cluster: Cluster):
    one, two = cluster.gateway("g1"), cluster.gateway("g2")
    async with running(one.run()), running(two.run()):
        await eventually(lambda: one._live == {"g1", "g2"})
        cluster.routings["g1"].skip_to(5)
        applied = asyncio.create_task(one.applied(5))
        await eventually(lambda: "gateway.g2.applied" in cluster.bus.requests)
        assert not applied.done()
        cluster.routings["g2"].skip_to(5)
        await applied


async def test_applied_waits_for_this_gateway_too(cluster: Cluster):
    one = cluster.gateway("g1")
    async with running(one.run()):
        applied = asyncio.create_task(one.applied(3))
        await turns()
        assert not applied.done()
        cluster.routings["g1"].skip_to(3)
        await applied


async def test_a_gateway_that_died_is_waited_for_until_its_lease_runs_out(cluster: Cluster):
    one = cluster.gateway("g1")
    cluster.leases.take("gateway.dead", holder="dead")
    async with running(one.run()):
        await eventually(lambda: "dead" in one._live)
        cluster.routings["g1"].skip_to(5)
        applied = asyncio.create_task(one.applied(5))
        await eventually(lambda: cluster.bus.requests.count("gateway.dead.applied") >= 2)
        assert not applied.done()
        cluster.leases.expire("gateway.dead")
        await applied


async def test_without_a_connection_asking_waits_and_starves_nobody(cluster: Cluster):
    one, two = cluster.gateway("g1"), cluster.gateway("g2")
    async with running(one.run()), running(two.run()):
        await eventually(lambda: one._live == {"g1", "g2"})
        cluster.bus.away = True
        for routing in cluster.routings.values():
            routing.skip_to(5)
        applied = asyncio.create_task(one.applied(5))
        await turns()
        assert not applied.done()
        cluster.bus.away = False
        await applied


async def test_a_gateway_that_fails_to_answer_is_asked_again(cluster: Cluster, monkeypatch):
    one, two = cluster.gateway("g1"), cluster.gateway("g2")
    real, failures = two._answer, [RuntimeError("boom")] * 2

    async def answer(subject: str, payload: bytes) -> bytes:
        if failures:
            raise failures.pop()
        return await real(subject, payload)

    monkeypatch.setattr(two, "_answer", answer)
    async with running(one.run()), running(two.run()):
        await eventually(lambda: one._live == {"g1", "g2"})
        for routing in cluster.routings.values():
            routing.skip_to(5)
        await one.applied(5)
    assert failures == []


async def test_a_gateway_that_stops_is_gone_at_once(cluster: Cluster):
    one, two = cluster.gateway("g1"), cluster.gateway("g2")
    async with running(one.run()):
        async with running(two.run()):
            await eventually(lambda: one._live == {"g1", "g2"})
            renewed = cluster.leases.live["gateway.g2"].token
            await eventually(lambda: cluster.leases.live["gateway.g2"].token > renewed)
        assert "gateway.g2" not in cluster.leases.live
        assert "gateway.g2.applied" not in cluster.bus.subjects
        await eventually(lambda: one._live == {"g1"})


async def test_a_gateway_that_lost_its_lease_takes_it_again(cluster: Cluster, monkeypatch):
    monkeypatch.setattr(gateways_module, "REJOIN_SECONDS", 0.001)
    one = cluster.gateway("g1")
    async with running(one.run()):
        await eventually(lambda: "g1" in one._live)
        cluster.leases.expire("gateway.g1")
        await eventually(lambda: "gateway.g1" in cluster.leases.live)

"""What every live gateway has applied."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from handlers import gateways as gateways_module
from handlers.gateways import Gateways
from handlers.routing import Routing
from tests.handlers.fakes import FakeBus, FakeLeases
from tests.handlers.world import eventually, running, turns


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

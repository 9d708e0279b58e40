"""The fakes of these tests do what the real bus, leases and timers do, where tests rely on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from events.errors import LeaseLost, NoResponders, RemoteFailure, RequestTimeout
from events.jetstream import JetStream
from tests.handlers.fakes import FakeBus, FakeLeases, FakeTimers


class Ports(msgspec.Struct, frozen=True):
    bus: Any
    leases: Any
    timers: Any


@pytest_asyncio.fixture(params=["fake", "real"])
async def ports(request: pytest.FixtureRequest, nats_url: str) -> AsyncIterator[Ports]:
    if request.param == "fake":
        yield Ports(FakeBus(), FakeLeases(), FakeTimers())
        return
    async with JetStream.connect(nats_url, replicas=1, lease_ttl_s=5.0) as jetstream:
        yield Ports(jetstream.bus, jetstream.leases, jetstream.timers)


async def test_only_the_newest_token_renews_or_releases(ports: Ports):
    first = await ports.leases.acquire("node.n1", holder="a")
    newest = await ports.leases.renew(first)
    assert newest.token > first.token
    await ports.leases.release(first)
    assert set(await ports.leases.held("node")) == {"node.n1"}
    with pytest.raises(LeaseLost):
        await ports.leases.renew(first)
    assert await ports.leases.acquire("node.n1", holder="b") is None
    own = await ports.leases.acquire("node.n1", holder="a")
    with pytest.raises(LeaseLost):
        await ports.leases.renew(newest)
    await ports.leases.release(own)
    assert await ports.leases.held("node") == {}


async def test_what_is_watched_is_told_first_and_then_every_change(ports: Ports):
    before = await ports.leases.acquire("gateway.g1", holder="g1")
    changes = ports.leases.watch("gateway")
    assert (await anext(changes)).lease == before
    await ports.leases.acquire("node.n1", holder="n1")
    after = await ports.leases.acquire("gateway.g2", holder="g2")
    assert (await anext(changes)).lease == after
    await ports.leases.release(before)
    gone = await anext(changes)
    assert (gone.name, gone.lease) == ("gateway.g1", None)
    await changes.aclose()


async def test_a_request_reaches_a_server_or_says_why_not(ports: Ports):
    async def answer(subject: str, payload: bytes) -> bytes:
        match payload:
            case b"refuse":
                raise RemoteFailure(subject, "unavailable", "not now")
            case b"break":
                raise ZeroDivisionError
            case b"hang":
                await asyncio.Future()
        return subject.encode() + payload

    async def ask(payload: bytes, *, timeout_s: float = 30.0) -> bytes:
        return await ports.bus.request("node.n1.load", payload, timeout_s=timeout_s)

    with pytest.raises(NoResponders):
        await ask(b"")
    service = await ports.bus.serve("node.n1.load", answer, queue="n1")
    assert await ask(b"!") == b"node.n1.load!"
    for payload, code in ((b"refuse", "unavailable"), (b"break", "internal")):
        with pytest.raises(RemoteFailure) as failure:
            await ask(payload)
        assert failure.value.code == code
    await service.stop()
    with pytest.raises(NoResponders):
        await ask(b"!")
    again = await ports.bus.serve("node.n1.load", answer, queue="n1")
    with pytest.raises(RequestTimeout):
        await ask(b"hang", timeout_s=0.2)
    if isinstance(ports.bus, FakeBus):
        await again.stop()


async def test_a_timer_set_again_is_replaced_and_a_cancelled_one_is_forgotten(ports: Ports):
    later = datetime.now(UTC) + timedelta(hours=1)
    await ports.timers.set("swap.acme.one", due=later, payload=b"old")
    await ports.timers.set("swap.acme.two", due=later, payload=b"two")
    await ports.timers.cancel("swap.acme.two")
    await ports.timers.cancel("swap.acme.none")
    await ports.timers.set("swap.acme.one", due=datetime.now(UTC), payload=b"new")
    if isinstance(ports.timers, FakeTimers):
        assert list(ports.timers.pending) == ["swap.acme.one"]
        ports.timers.fire("swap.acme.one")
    wakes = ports.timers.wakes("swap")
    async with asyncio.timeout(5):
        wake = await anext(wakes)
    assert (wake.timer, wake.payload) == ("swap.acme.one", b"new")
    await wake.done()
    await wakes.aclose()

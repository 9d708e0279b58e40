"""One holder at a time, and everybody learns when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

import pytest

from events import InvalidIdentifier, LogUnavailable
from events.errors import LeaseLost
from events.jetstream import JetStream
from events.leases import Lease, LeaseChange
from switchback.embedded import NatsServer


async def acquired(jetstream: JetStream, name: str, holder: str, value: bytes = b"") -> Lease:
    lease = await jetstream.leases.acquire(name, holder=holder, value=value)
    assert lease is not None
    return lease


def watching(jetstream: JetStream, prefix: str) -> AsyncGenerator[LeaseChange, None]:
    changes = jetstream.leases.watch(prefix)
    assert isinstance(changes, AsyncGenerator)
    return changes


async def until_gone(jetstream: JetStream, name: str) -> None:
    async with aclosing(watching(jetstream, name)) as changes:
        async for change in changes:
            if change.lease is None:
                return


async def test_a_lease_has_one_holder(jetstream: JetStream) -> None:
    lease = await acquired(jetstream, "reaction.swaps", "a", b"hello")
    assert (lease.name, lease.holder, lease.value) == ("reaction.swaps", "a", b"hello")
    assert await jetstream.leases.acquire("reaction.swaps", holder="b") is None


async def test_of_many_who_try_one_gets_it(jetstream: JetStream) -> None:
    tries = await asyncio.gather(
        *(jetstream.leases.acquire("reaction.swaps", holder=f"h{n}") for n in range(20))
    )
    assert len([lease for lease in tries if lease is not None]) == 1


async def test_a_holder_may_acquire_its_own_again(jetstream: JetStream) -> None:
    first = await acquired(jetstream, "reaction.swaps", "a")
    again = await acquired(jetstream, "reaction.swaps", "a", b"new")
    assert again.token > first.token
    assert again.value == b"new"


async def test_every_change_raises_the_token(jetstream: JetStream) -> None:
    lease = await acquired(jetstream, "reaction.swaps", "a", b"1")
    renewed = await jetstream.leases.renew(lease)
    changed = await jetstream.leases.renew(renewed, value=b"2")
    await jetstream.leases.release(changed)
    other = await acquired(jetstream, "reaction.swaps", "b")
    assert lease.token < renewed.token < changed.token < other.token
    assert (renewed.value, changed.value) == (b"1", b"2")


async def test_an_old_token_renews_nothing(jetstream: JetStream) -> None:
    lease = await acquired(jetstream, "reaction.swaps", "a")
    await jetstream.leases.renew(lease)
    with pytest.raises(LeaseLost) as lost:
        await jetstream.leases.renew(lease)
    assert (lost.value.name, lost.value.holder) == ("reaction.swaps", "a")


async def test_a_released_lease_is_free_at_once(jetstream: JetStream) -> None:
    lease = await acquired(jetstream, "reaction.swaps", "a")
    await jetstream.leases.release(lease)
    assert await jetstream.leases.held("reaction.swaps") == {}
    await acquired(jetstream, "reaction.swaps", "b")
    with pytest.raises(LeaseLost):
        await jetstream.leases.renew(lease)


async def test_releasing_what_is_lost_is_silent_and_takes_nothing_away(
    jetstream: JetStream,
) -> None:
    lease = await acquired(jetstream, "reaction.swaps", "a")
    await jetstream.leases.release(lease)
    await acquired(jetstream, "reaction.swaps", "b")
    await jetstream.leases.release(lease)
    assert (await jetstream.leases.held("reaction.swaps"))["reaction.swaps"].holder == "b"


async def test_a_lease_that_is_not_renewed_runs_out(jetstream: JetStream) -> None:
    lease = await acquired(jetstream, "node.n1", "n1")
    await until_gone(jetstream, "node.n1")
    assert await jetstream.leases.held("node") == {}
    with pytest.raises(LeaseLost):
        await jetstream.leases.renew(lease)
    assert (await acquired(jetstream, "node.n1", "other")).token > lease.token


async def test_a_renewed_lease_outlives_its_time(jetstream: JetStream) -> None:
    lease = await acquired(jetstream, "node.kept", "n1")
    await acquired(jetstream, "node.left", "n2")
    changes = watching(jetstream, "node")
    async with aclosing(changes):
        async for change in changes:
            if change.lease is None:
                break
            if change.name == "node.kept":
                await asyncio.sleep(jetstream.leases.ttl_s / 6)
                lease = await jetstream.leases.renew(lease)
    assert change.name == "node.left"
    assert list(await jetstream.leases.held("node")) == ["node.kept"]


async def test_held_lists_a_prefix_and_what_is_below_it(jetstream: JetStream) -> None:
    for name in ("node", "node.n1", "node.n2", "node2", "reaction.swaps"):
        await acquired(jetstream, name, "a", name.encode())
    held = await jetstream.leases.held("node")
    assert {name: lease.value for name, lease in held.items()} == {
        "node": b"node",
        "node.n1": b"node.n1",
        "node.n2": b"node.n2",
    }
    assert await jetstream.leases.held("nothing") == {}


async def test_a_watcher_sees_what_is_there_then_every_change(jetstream: JetStream) -> None:
    one = await acquired(jetstream, "node.n1", "n1")
    async with aclosing(watching(jetstream, "node")) as changes:
        assert await anext(changes) == LeaseChange(name="node.n1", lease=one)
        two = await acquired(jetstream, "node.n2", "n2")
        assert await anext(changes) == LeaseChange(name="node.n2", lease=two)
        await jetstream.leases.release(two)
        assert await anext(changes) == LeaseChange(name="node.n2", lease=None)
        assert await anext(changes) == LeaseChange(name="node.n1", lease=None)


async def test_a_watcher_does_not_hear_of_other_names(jetstream: JetStream) -> None:
    async with aclosing(watching(jetstream, "node")) as changes:
        waiting = asyncio.ensure_future(anext(changes))
        await acquired(jetstream, "reaction.swaps", "a")
        await acquired(jetstream, "node.n1", "n1")
        assert (await waiting).name == "node.n1"


@pytest.mark.slow
async def test_a_watcher_learns_after_an_outage_who_is_gone(tmp_path: Path) -> None:
    async with (
        NatsServer(tmp_path / "nats") as server,
        JetStream.connect(server.url, lease_ttl_s=0.6) as jetstream,
    ):
        await acquired(jetstream, "node.n1", "n1")
        async with aclosing(watching(jetstream, "node")) as changes:
            assert (await anext(changes)).lease is not None
            waiting = asyncio.ensure_future(anext(changes))
            server.kill()
            await server.start()
            change = await waiting
            while change.lease is not None:
                change = await anext(changes)
            assert change.name == "node.n1"
        await acquired(jetstream, "node.n1", "n1")


@pytest.mark.slow
async def test_without_a_server_a_lease_cannot_be_renewed(tmp_path: Path) -> None:
    async with (
        NatsServer(tmp_path / "nats") as server,
        JetStream.connect(server.url, lease_ttl_s=0.6) as jetstream,
    ):
        lease = await acquired(jetstream, "node.n1", "n1")
        server.kill()
        with pytest.raises(LogUnavailable):
            await jetstream.leases.renew(lease)
        await server.start()


async def test_leases_work_on_three_servers(jetstream_three: JetStream) -> None:
    lease = await acquired(jetstream_three, "node.three", "n1")
    await jetstream_three.calls.insist_on("STREAM.LEADER.STEPDOWN.KV_LEASES")
    lease = await jetstream_three.leases.renew(lease)
    assert await jetstream_three.leases.acquire("node.three", holder="n2") is None
    await jetstream_three.leases.release(lease)


@pytest.mark.parametrize("name", ["", ">", "*", "node.*", "node..n1", "a b", "x\r\n", "x" * 65])
async def test_a_hostile_name_is_refused(jetstream: JetStream, name: str) -> None:
    with pytest.raises(InvalidIdentifier):
        await jetstream.leases.acquire(name, holder="a")
    with pytest.raises(InvalidIdentifier):
        await jetstream.leases.held(name)

"""Leases: who leads, who is alive, who is told."""

from __future__ import annotations

import asyncio

import pytest

from events.errors import LeaseLost
from handlers.reactions.leader import keep, lead, let_go
from tests.handlers.fakes import FakeLeases
from tests.handlers.world import eventually, running, turns


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

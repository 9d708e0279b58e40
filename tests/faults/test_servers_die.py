"""kill -9 of each server under load: nothing acknowledged is lost, traffic goes on."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from events.catalogue.models import ModelRegistered
from switchback.client import Problem
from tests.faults.conftest import Rig
from tests.faults.load import Load

pytestmark = pytest.mark.slow


async def registered_on_the_log(rig: Rig) -> dict[str, int]:
    """Model -> position, and that none is there twice."""
    head = await rig.process.jetstream.events.position()
    found: dict[str, int] = {}
    async for recorded in rig.process.jetstream.events.subscribe():
        if isinstance(recorded.event, ModelRegistered):
            assert recorded.event.name not in found, "stored twice"
            found[recorded.event.name] = recorded.position
        if recorded.position == head:
            break
    return found


async def nothing_is_lost(rig: Rig, load: Load) -> None:
    on_the_log = await registered_on_the_log(rig)
    assert load.acknowledged.items() <= on_the_log.items()
    assert all(report.ok for report in await rig.verified())


async def test_nats_is_killed_under_load(rig: Rig):
    async with Load(rig.client) as load:
        await load.more(answers=50, commands=20)
        rig.nats.kill()
        await load.more(answers=200)
        await rig.nats.start()
        await load.more(answers=50, commands=20)
    assert load.inference_failures == []
    await nothing_is_lost(rig, load)


async def test_postgres_is_killed_under_load(rig: Rig):
    async with Load(rig.client) as load:
        await load.more(answers=50, commands=20)
        rig.postgres.kill()
        await load.more(answers=200, commands=50)
        await rig.postgres.start()
        await load.more(answers=50, commands=20)
    assert load.inference_failures == []
    assert not load.refused
    await nothing_is_lost(rig, load)


async def test_redis_is_killed_and_flushed_under_load(rig: Rig):
    async with Load(rig.client) as load:
        await load.more(answers=50, commands=20)
        rig.redis.kill()
        await load.more(answers=100, commands=50)
        await rig.redis.start()
        await load.more(answers=50, commands=20)
        async with Redis.from_url(rig.redis.url) as redis:
            await redis.flushall()
        swapped = await rig.client.swap("scores", to="2.0.0")
        assert (await rig.client.endpoint("scores"))["active"] == "2.0.0"
        await load.more(answers=50, commands=20)
    assert swapped["state"] == "completed"
    assert load.inference_failures == []
    assert not load.refused
    await nothing_is_lost(rig, load)


async def test_traffic_flows_while_all_three_are_down(rig: Rig):
    rig.nats.kill()
    rig.postgres.kill()
    rig.redis.kill()
    answers = await asyncio.gather(
        *(rig.client.infer("scores", [n], key=f"user-{n}") for n in range(300))
    )
    assert {answer.version for answer in answers} == {"1.0.0"}
    with pytest.raises(Problem) as refused:
        await rig.client.endpoint("scores")
    assert refused.value.code in ("unavailable", "timeout")
    await asyncio.gather(rig.nats.start(), rig.postgres.start(), rig.redis.start())
    swapped = await rig.client.swap("scores", to="2.0.0")
    assert swapped["state"] == "completed"
    assert all(report.ok for report in await rig.verified())


async def test_a_frozen_nats_fails_no_request_and_loses_no_command(rig: Rig):
    async with Load(rig.client) as load:
        await load.more(answers=20, commands=10)
        rig.nats.freeze()
        await load.more(answers=200)
        rig.nats.thaw()
        await load.more(answers=20, commands=10)
    assert load.inference_failures == []
    await nothing_is_lost(rig, load)

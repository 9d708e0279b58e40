"""Rollouts under traffic while servers die: every step once, every request answered."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.conftest import SETTLE_SECONDS, Rig
from tests.faults.load import Load

pytestmark = pytest.mark.slow
STEPS = [{"weight": weight, "hold_s": 1.0, "min_samples": 5} for weight in (20, 50, 100)]


async def steps_taken(rig: Rig, rollout_id: str) -> list[str]:
    """What happened to the rollout, holds left out: whether one is needed depends on the outage."""
    history = [event async for event in rig.client.events(entity="endpoint/scores")]
    mine = [event for event in history if event["data"].get("rollout_id") == rollout_id]
    kinds = [event["type"].split(".")[2] for event in mine]
    return [kind for kind in kinds if kind != "rollout_held"]


@pytest.mark.parametrize("server", ["nats", "postgres", "redis"])
async def test_a_rollout_goes_on_after_a_server_was_killed_in_the_middle_of_it(
    rig: Rig, server: str
):
    async with Load(rig.client) as load:
        started = await rig.client.start_rollout(
            "scores", to="2.0.0", steps=STEPS, analysis={"margin": 0.5}
        )
        await load.more(answers=50)
        victim = getattr(rig, server)
        victim.kill()
        await load.more(answers=200)
        await victim.start()
        async with asyncio.timeout(2 * SETTLE_SECONDS):
            ended = await rig.client.wait_for_rollout("scores", started["id"])
        await load.more(answers=20)
    assert ended["state"] == "completed"
    taken = await steps_taken(rig, started["id"])
    assert taken == ["rollout_started", *["rollout_advanced"] * 2, "rollout_completed"]
    assert load.inference_failures == []
    assert all(report.ok for report in await rig.verified())


async def test_a_bad_candidate_goes_back_while_postgres_and_redis_are_away(rig: Rig):
    """What judges and what routes needs the log alone."""
    await rig.client.register_version("fraud", "3.0.0", runtime="echo", config={"error_rate": 1.0})
    async with Load(rig.client) as load:
        await rig.client.start_rollout("scores", to="3.0.0", steps=STEPS)
        rig.postgres.kill()
        rig.redis.kill()
        async with asyncio.timeout(SETTLE_SECONDS):
            while rig.process.routing.rolling():
                await rig.process.routing.reach(rig.process.routing.position + 1)
        await load.more(answers=20)  # those that were under way to the candidate have ended
        failed = len(load.inference_failures)
        await load.more(answers=200)
        assert len(load.inference_failures) == failed
        await rig.postgres.start()
        await rig.redis.start()
    assert failed >= 1
    route = rig.process.routing.routes["default", "scores"]
    assert route.state.policy.split == {"1.0.0": 100.0}

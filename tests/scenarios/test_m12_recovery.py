"""M12: any process killed at any moment; what it ends in, the log explains."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta
from pathlib import Path

import httpx
import pytest

from switchback.client import Client, Problem
from tests.cli.running import Up, done

pytestmark = pytest.mark.slow
SETTLE_SECONDS = 60


async def prepared(up: Up, **slow: object) -> None:
    async with Client.from_data_dir(up.data_dir) as client:
        await client.register_model("fraud")
        await client.register_version("fraud", "1.0.0", runtime="echo")
        await client.register_version("fraud", "2.0.0", runtime="echo", config=slow)
        await client.create_endpoint("scores", model="fraud", version="1.0.0")


async def ended_swap(client: Client) -> dict[str, object]:
    """The endpoint's swap, once it is over."""
    async with asyncio.timeout(SETTLE_SECONDS):
        async for _ in client.follow_events(entity="endpoint/scores"):
            swap = (await client.endpoint("scores", at=2**40))["swap"]
            if swap is not None and swap["state"] != "requested":
                return swap
    raise AssertionError("the stream ended")


async def test_m12_a_swap_goes_on_after_everything_was_killed(tmp_path: Path):
    up = Up(tmp_path)
    await prepared(up, load_ms=1_000)
    async with Client.from_data_dir(tmp_path) as client:
        asked = await client.request_swap("scores", to="2.0.0")
    up.kill()
    up = Up(tmp_path)
    try:
        async with Client.from_data_dir(tmp_path) as client:
            swap = await ended_swap(client)
            assert (swap["id"], swap["state"]) == (asked["id"], "completed")
            assert (await client.infer("scores", [1])).version == "2.0.0"
            assert (await client.rollback("scores"))["to"] == "1.0.0"
            assert (await client.infer("scores", [1])).version == "1.0.0"
        done("verify", "--data-dir", tmp_path)
    finally:
        up.kill()


async def test_m12_a_swap_whose_time_ran_out_while_all_was_down_has_failed(tmp_path: Path):
    up = Up(tmp_path)
    await prepared(up, load_ms=3_600_000)
    async with Client.from_data_dir(tmp_path) as client:
        asked = await client.request_swap("scores", to="2.0.0", timeout_s=1.5)
    up.kill()
    up = Up(tmp_path)
    try:
        async with Client.from_data_dir(tmp_path) as client:
            swap = await ended_swap(client)
            assert (swap["id"], swap["state"], swap["reason"]) == (asked["id"], "failed", "timeout")
            assert (await client.infer("scores", [1])).version == "1.0.0"
    finally:
        up.kill()


async def moves(client: Client, acknowledged: list[int]) -> None:
    """Swap there and back for ever, noting what was acknowledged."""
    while True:
        acknowledged.append((await client.swap("scores", to="2.0.0"))["position"])
        acknowledged.append((await client.rollback("scores"))["position"])


async def registrations(client: Client, worker: int, acknowledged: list[int]) -> None:
    n = 0
    while True:
        n += 1
        acknowledged.append((await client.register_model(f"m-{worker}-{n}"))["position"])


@pytest.mark.parametrize("acknowledgements", [5, 60])
async def test_m12_kill_9_at_any_moment_loses_nothing_acknowledged(
    tmp_path: Path, acknowledgements: int
):
    up = Up(tmp_path)
    await prepared(up)
    acknowledged: list[int] = []
    async with Client.from_data_dir(tmp_path) as client:
        working = [asyncio.ensure_future(moves(client, acknowledged))]
        working += [asyncio.ensure_future(registrations(client, n, acknowledged)) for n in range(4)]
        async for _ in client.follow_events():
            if len(acknowledged) >= acknowledgements:
                break
        up.kill()
        for task in working:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, httpx.TransportError, Problem):
                await task
    up = Up(tmp_path)
    try:
        async with Client.from_data_dir(tmp_path) as client:
            positions = {event["position"] async for event in client.events()}
            assert set(acknowledged) <= positions
            now = await client.endpoint("scores")
            then = await client.endpoint("scores", at=max(positions) + 10**6)
            assert (now["policy"], now["active"]) == (then["policy"], then["active"])
            served = (await client.infer("scores", [1])).version
            assert served in now["policy"]["split"]
        done("verify", "--data-dir", tmp_path)
    finally:
        up.kill()


async def test_m12_a_rollout_goes_on_in_its_hold_after_everything_was_killed(tmp_path: Path):
    """Nobody asks anything, and it is told to go on then: its clock is all that moves it."""
    hold_s = 3.0
    up = Up(tmp_path)
    await prepared(up)
    async with Client.from_data_dir(tmp_path) as client:
        started = await client.start_rollout(
            "scores",
            to="2.0.0",
            steps=[{"weight": 10, "hold_s": hold_s}, {"weight": 50, "hold_s": 0.1}],
            analysis={"on_inconclusive": "promote"},
        )
    up.kill()
    up = Up(tmp_path)
    try:
        async with Client.from_data_dir(tmp_path) as client, asyncio.timeout(SETTLE_SECONDS):
            ended = await client.wait_for_rollout("scores", started["id"])
            assert ended["state"] == "completed"
            history = [event async for event in client.events(entity="endpoint/scores")]
        steps = [event for event in history if event["data"].get("rollout_id") == started["id"]]
        kinds = [event["type"].split(".")[2] for event in steps]
        assert kinds == ["rollout_started", "rollout_advanced", "rollout_completed"]
        first, second, _ = (datetime.fromisoformat(event["time"]) for event in steps)
        assert second - first >= timedelta(seconds=hold_s)
        done("verify", "--data-dir", tmp_path)
    finally:
        up.kill()

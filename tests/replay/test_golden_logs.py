"""Every golden log leads to its golden rows and cache, in memory and through real servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from events import Recorded
from handlers.following import encode_snapshot
from switchback.replaying import ReplayServers, Tables, replay
from switchback.replaying.contents import read_tables
from tests.logs.histories import HISTORIES
from tests.logs.record import DIRECTORY, cache_file, cache_of, record, rows_file, rows_of
from tests.replay.cached import cache_entries
from tests.replay.upto import UpTo


@pytest.mark.parametrize("name", HISTORIES)
async def test_recording_a_history_again_gives_the_same_bytes(name: str) -> None:
    assert await record(name) == (DIRECTORY / f"{name}.jsonl").read_bytes()


def test_a_log_folded_in_memory_gives_its_golden_rows_and_cache(golden: Path) -> None:
    assert rows_of(golden) == rows_file(golden).read_bytes()
    assert cache_of(golden) == cache_file(golden).read_bytes()


async def test_a_log_through_servers_gives_its_golden_rows_cache_and_routing(
    replay_servers: ReplayServers,
    golden_events: list[Recorded],
    golden_tables: Tables,
    golden_cache: dict[str, Any],
) -> None:
    async with replay_servers.stage() as stage:
        position = await stage.write(golden_events)
        async with stage.projector() as projecting:
            await projecting.reached(position)
            await projecting.cached(position)
        assert await read_tables(stage.pool) == golden_tables
        assert await cache_entries(stage.redis_url) == golden_cache
        routing = await stage.routing()
    expected = replay(golden_events).routing
    assert encode_snapshot(routing.snapshot()) == encode_snapshot(expected.snapshot())


async def test_a_log_replayed_twice_gives_the_same(
    replay_servers: ReplayServers, golden_events: list[Recorded]
) -> None:
    first = await replay_servers.replay(golden_events)
    second = await replay_servers.replay(golden_events)
    assert first.tables == second.tables
    assert encode_snapshot(first.routing.snapshot()) == encode_snapshot(second.routing.snapshot())


async def test_a_projector_killed_at_every_batch_boundary_gives_the_same(
    replay_servers: ReplayServers, golden_events: list[Recorded], golden_tables: Tables
) -> None:
    async with replay_servers.stage() as stage:
        await stage.write(golden_events)
        for recorded in golden_events:
            log = UpTo(stage.log, recorded.position)
            async with stage.projector(log=log) as projecting:
                await projecting.reached(recorded.position)
        assert await read_tables(stage.pool) == golden_tables


async def test_a_projector_killed_inside_every_batch_gives_the_same(
    replay_servers: ReplayServers, golden_events: list[Recorded], golden_tables: Tables
) -> None:
    """Each projector is ended as soon as it has asked for its batch, somewhere in the work."""
    async with replay_servers.stage() as stage:
        position = await stage.write(golden_events)
        for recorded in golden_events:
            log = UpTo(stage.log, recorded.position)
            async with stage.projector(log=log):
                await log.handed_out.wait()
        async with stage.projector() as projecting:
            await projecting.reached(position)
        assert await read_tables(stage.pool) == golden_tables

"""Proof: what was, why it was so, and that the tables say what the log says."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from engine.routing import decide_route
from events import Position
from events.files import export_events, import_events
from projections.progress import Progress
from projections.tables import PROJECTIONS
from projections.verify import verify
from switchback.client import Client, Problem
from switchback.replaying import ReplayServers, Tables, read_log, replay
from switchback.replaying.contents import read_tables
from tests.logs.record import DIRECTORY
from tests.system import System

KEYS = [f"user-{number}" for number in range(200)]
NOW_MS = 1_767_225_600_000


async def moved_about(client: Client) -> list[dict[str, Any]]:
    """Endpoint `scores`, created, split, swapped and rolled back; its events."""
    await client.register_model("fraud")
    for version in ("1.0.0", "2.0.0"):
        await client.register_version("fraud", version, runtime="echo", config={"answer": version})
    await client.create_endpoint("scores", model="fraud", version="1.0.0")
    await client.set_policy("scores", {"split": {"1.0.0": 50, "2.0.0": 50}})
    await client.swap("scores", to="2.0.0")
    await client.rollback("scores", reason="complaints")
    return [event async for event in client.events(entity="endpoint/scores")]


async def exported(system: System, file: Path) -> Position:
    with file.open("xb") as out:
        return await export_events(system.process.jetstream.events, out)


async def tables_of(system: System, position: Position) -> Tables:
    """The system's tables at a position that is the end of its log."""
    pool = system.process.pool
    deadline = asyncio.get_running_loop().time() + 30.0
    names = [projection.name for projection in PROJECTIONS]
    assert await Progress(pool).wait(names, position, deadline=deadline)
    return await read_tables(pool)


async def test_p01_an_endpoint_as_of_every_position_and_time(system: System):
    client = system.client
    events = await moved_about(client)
    created, split, requested, completed, rolled_back = events
    expected = [
        (created, {"1.0.0": 100.0}),
        (split, {"1.0.0": 50.0, "2.0.0": 50.0}),
        (requested, {"1.0.0": 50.0, "2.0.0": 50.0}),
        (completed, {"2.0.0": 100.0}),
        (rolled_back, {"1.0.0": 100.0}),
    ]
    for event, policy in expected:
        by_position = await client.endpoint("scores", at=event["position"])
        assert by_position["policy"]["split"] == policy
        assert by_position["position"] == event["position"]
        assert await client.endpoint("scores", at=event["time"]) == by_position
    with pytest.raises(Problem) as refused:
        await client.endpoint("scores", at=created["position"] - 1)
    assert refused.value.code == "not_found"
    now = await client.endpoint("scores", at=rolled_back["position"])
    assert now == await client.endpoint("scores")


async def test_p02_a_key_explained_at_any_time_with_the_event_that_caused_it(system: System):
    client = system.client
    created, split, _, completed, rolled_back = await moved_about(client)
    during_split: set[str] = set()
    for key in KEYS[:20]:
        for event, version in ((created, "1.0.0"), (completed, "2.0.0"), (rolled_back, "1.0.0")):
            explained = await client.explain("scores", key=key, at=event["position"])
            assert explained["version"] == version
            assert explained["event"]["id"] == event["id"]
            assert explained["event"]["type"] == event["type"]
            assert explained["event"]["actor"] == event["actor"]
        then = await client.explain("scores", key=key, at=split["position"])
        assert then["event"]["id"] == split["id"]
        during_split.add(then["version"])
    assert during_split == {"1.0.0", "2.0.0"}


async def test_p03_a_receipt_verifies_and_a_forged_one_does_not(system: System):
    client = system.client
    await moved_about(client)
    await client.set_policy("scores", {"split": {"1.0.0": 50, "2.0.0": 50}})
    answers = [await client.infer("scores", [1], key=key) for key in KEYS[:20]]
    await client.rollback("scores", reason="later events change no receipt")
    for answer in answers:
        explained = await client.explain_receipt(answer.receipt)
        assert explained["valid"] is True
        assert explained["version"] == answer.version
        assert explained["position"] == answer.position
    for place in range(0, len(answers[0].receipt), 7):
        assert not await is_valid(client, forged(answers[0].receipt, place))
    with pytest.raises(Problem) as refused:
        await client.explain_receipt("no receipt at all")
    assert refused.value.code == "invalid"


def forged(receipt: str, place: int) -> str:
    """The receipt with another character in one place."""
    other = "A" if receipt[place] != "A" else "B"
    return receipt[:place] + other + receipt[place + 1 :]


async def is_valid(client: Client, receipt: str) -> bool:
    """A text that is no receipt any more, or names another endpoint, is refused instead."""
    try:
        explained = await client.explain_receipt(receipt)
    except Problem as problem:
        assert problem.code in ("invalid", "not_found")
        return False
    return bool(explained["valid"])


async def test_p06_verify_finds_one_changed_row(replay_servers: ReplayServers):
    events = list(read_log(DIRECTORY / "plain-lifecycle.jsonl"))
    async with replay_servers.stage() as stage:
        position = await stage.write(events)
        async with stage.projector() as projecting:
            await projecting.reached(position)
        reports = await verify(log=stage.log, pool=stage.pool)
        assert all(report.ok for report in reports)
        connection = await asyncpg.connect(stage.pool.settings.dsn)
        changed = await connection.execute(
            "UPDATE switchback.versions SET runtime = 'python' WHERE version = '2.0.0'"
        )
        await connection.close()
        assert changed == "UPDATE 1"
        reports = await verify(log=stage.log, pool=stage.pool)
        wrong = [table for report in reports for table in report.tables if not table.ok]
        assert [table.table for table in wrong] == ["versions"]
        (different,) = wrong[0].different
        assert "2.0.0" in different
        assert (wrong[0].missing, wrong[0].extra) == ([], [])


async def test_p07_a_log_exported_and_imported_elsewhere_gives_the_same(
    system: System, replay_servers: ReplayServers, tmp_path: Path
):
    await moved_about(system.client)
    await system.client.set_policy("scores", {"split": {"1.0.0": 30, "2.0.0": 70}})
    file = tmp_path / "log.jsonl"
    position = await exported(system, file)
    async with replay_servers.stage() as elsewhere:
        with file.open("rb") as source:
            assert await import_events(source, elsewhere.log) == position
        async with elsewhere.projector() as projecting:
            await projecting.reached(position)
        there = await read_tables(elsewhere.pool)
        routing = await elsewhere.routing()
    assert there == await tables_of(system, position)
    here = system.process.routing.routes["default", "scores"]
    route = routing.routes["default", "scores"]
    assert route.state == here.state
    for key in KEYS:
        assert decide_route(route.table, key, NOW_MS, {}) == decide_route(
            here.table, key, NOW_MS, {}
        )


async def test_p08_an_old_log_of_an_old_event_version_still_replays(
    replay_servers: ReplayServers,
):
    log = DIRECTORY / "old-event-versions.jsonl"
    assert b"switchback.model.version_registered.v1" in log.read_bytes()
    events = list(read_log(log))
    through_servers = await replay_servers.replay(events)
    assert through_servers.tables == replay(events).tables
    (version,) = [v for v in through_servers.tables["versions"] if v["version"] == "1.1.0"]
    assert version["artifact"] == {
        "uri": "file:///srv/artifacts/fraud-1.1.0",
        "sha256": "c4" * 32,
        "size_bytes": 20_480,
    }

"""Bringing tables up to a log in tests, and looking at them whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from events import EventLog, Position, Recorded
from handlers.projector import Projector, ProjectorStatus
from projections import DatabaseRefused, Pool
from projections.applier import Applier, moved
from projections.builds import Build, builds, install
from projections.cache import Cache
from projections.failures import FailurePolicy, stop_always
from projections.progress import Progress
from projections.projection import Projection
from projections.tables import PROJECTIONS

NAMES = [projection.name for projection in PROJECTIONS]
NOW = datetime(2026, 3, 1, tzinfo=UTC)
WAIT_SECONDS = 30.0
_OPEN_TRANSACTIONS = """
    SELECT 1 FROM pg_stat_activity
     WHERE datname = current_database() AND pid <> pg_backend_pid()
       AND backend_type = 'client backend' AND state <> 'idle'"""


async def events_of(log: EventLog, last: Position) -> list[Recorded]:
    """The log up to a position."""
    found: list[Recorded] = []
    async for recorded in log.subscribe():
        found.append(recorded)
        if recorded.position >= last:
            return found
    raise AssertionError("a subscription never ends")


async def project(
    pool: Pool, events: Sequence[Recorded], *, policy: FailurePolicy = stop_always
) -> list[Build]:
    """Apply events as one batch to whatever builds there are."""
    try:
        found = await builds(pool, PROJECTIONS)
    except DatabaseRefused:  # the first time in this database
        await install(pool, PROJECTIONS)
        found = await builds(pool, PROJECTIONS)
    applier = Applier(pool, policy=policy, now=lambda: NOW)
    return moved(found, await applier.apply(found, events))


async def contents(pool: Pool) -> dict[str, list[Any]]:
    """Every row of every table, and the checkpoints."""
    tables: dict[str, list[Any]] = {}
    for projection in PROJECTIONS:
        for table in projection.tables:
            rows = await pool.fetch(f"SELECT * FROM switchback.{table.name} t ORDER BY t::text")
            tables[table.name] = [tuple(row.values()) for row in rows]
    rows = await pool.fetch("SELECT name, position FROM switchback.checkpoint ORDER BY name")
    tables["checkpoint"] = [tuple(row.values()) for row in rows]
    return tables


@asynccontextmanager
async def projecting(
    log: EventLog,
    pool: Pool,
    progress: Progress,
    *,
    cache: Cache | None = None,
    policy: FailurePolicy = stop_always,
    projections: Sequence[Projection] = PROJECTIONS,
) -> AsyncIterator[Projector]:
    """A projector that runs for as long as the block."""
    projector = Projector(
        log=log, pool=pool, progress=progress, cache=cache, policy=policy, projections=projections
    )
    task = asyncio.create_task(projector.run())
    try:
        yield projector
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def reached(progress: Progress, position: Position, *, names: Sequence[str] = NAMES) -> None:
    """Wait until all tables are at a position."""
    deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
    assert await progress.wait(names, position, deadline=deadline), f"{position} was not reached"


async def told(projector: Projector, position: Position) -> ProjectorStatus:
    """The projector's status from when it says itself that it is at a position: who looks at the
    tables may see its commit a moment before it does."""
    async with asyncio.timeout(WAIT_SECONDS):
        while (status := await projector.status()).position < position:  # noqa: ASYNC110 - it has no signal
            await asyncio.sleep(0)
    return status


async def decided(pool: Pool) -> None:
    """Wait until no transaction of this database is open: the server may still have to do what a
    connection that is closed had asked for."""
    async with asyncio.timeout(WAIT_SECONDS):
        while await pool.fetch(_OPEN_TRANSACTIONS):
            pass

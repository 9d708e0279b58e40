"""However the log is cut into batches, and whatever is applied again, the rows are the same."""

from __future__ import annotations

import asyncio
import itertools
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events import Recorded
from projections import DatabaseUnavailable, Pool, store
from projections.applier import Applier
from projections.apply import Work, apply_one, fold
from projections.builds import Move, builds, install, move
from projections.errors import CheckpointMoved
from projections.failures import stop_always
from projections.tables import PROJECTIONS
from projections.tables.endpoints import ENDPOINTS
from projections.working import WorkingSet
from tests.projections.history import LIFE, life
from tests.projections.project import NOW, contents, decided, events_of, project

EVENTS = sum(len(events) for _, events in LIFE)


@pytest.fixture
async def history() -> list[Recorded]:
    log = await life()
    return await events_of(log, await log.position())


async def reset(pool: Pool) -> None:
    """Empty tables at position 0."""
    found = await builds(pool, PROJECTIONS)
    tables = [f'"{b.schema}"."{table.name}"' for b in found for table in b.projection.tables]
    async with pool.transaction() as connection:
        await connection.execute(f"DELETE FROM {'; DELETE FROM '.join(tables)}")
        await connection.execute("UPDATE switchback.checkpoint SET position = 0")


async def test_applying_a_batch_again_changes_nothing(pool: Pool, history: list[Recorded]) -> None:
    await project(pool, history)
    once = await contents(pool)
    await project(pool, history)
    assert await contents(pool) == once


@pytest.mark.slow
async def test_rows_are_the_same_wherever_the_log_is_split_in_two(
    pool: Pool, history: list[Recorded]
) -> None:
    await project(pool, history)
    whole = await contents(pool)
    for split in range(1, EVENTS):
        await reset(pool)
        await project(pool, history[:split])
        await project(pool, history[split:])
        assert await contents(pool) == whole, f"split after event {split}"


async def test_rows_are_the_same_one_event_at_a_time(pool: Pool, history: list[Recorded]) -> None:
    await project(pool, history)
    whole = await contents(pool)
    await reset(pool)
    for recorded in history:
        await project(pool, [recorded])
    assert await contents(pool) == whole


@pytest.mark.slow
@given(cuts=st.sets(st.integers(min_value=1, max_value=EVENTS - 1), max_size=8))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
async def test_rows_are_the_same_however_often_the_log_is_cut(
    pool: Pool, history: list[Recorded], cuts: set[int]
) -> None:
    await install(pool, PROJECTIONS)
    await reset(pool)
    await project(pool, history)
    whole = await contents(pool)
    await reset(pool)
    bounds = [0, *sorted(cuts), len(history)]
    for start, end in pairwise(bounds):
        await project(pool, history[start:end])
    assert await contents(pool) == whole


async def test_each_row_is_written_once_per_batch(history: list[Recorded]) -> None:
    """The endpoint changes a dozen times in the log; in one batch that is one write."""
    rows = WorkingSet()
    for projection in PROJECTIONS:
        fold(projection, rows, history)
    assert len(rows[ENDPOINTS].changed) == 2


async def test_two_that_apply_the_same_batch_at_once_apply_it_once(
    pool: Pool, history: list[Recorded]
) -> None:
    await install(pool, PROJECTIONS)
    found = await builds(pool, PROJECTIONS)
    appliers = [Applier(pool, policy=stop_always, now=lambda: NOW) for _ in range(4)]
    outcomes = await asyncio.gather(
        *(applier.apply(found, history) for applier in appliers), return_exceptions=True
    )
    lost = [outcome for outcome in outcomes if isinstance(outcome, CheckpointMoved)]
    assert len(lost) == 3
    once = await contents(pool)
    assert len(once["events"]) == EVENTS


async def test_a_connection_that_dies_before_commit_leaves_no_trace(
    pool: Pool, history: list[Recorded]
) -> None:
    await install(pool, PROJECTIONS)
    before = await contents(pool)
    found = await builds(pool, PROJECTIONS)
    works = [Work(build=b, events=history, target=history[-1].position) for b in found]
    with pytest.raises(DatabaseUnavailable):
        async with pool.transaction() as connection:
            await move(
                connection,
                [Move(schema=w.build.schema, expected=0, target=w.target) for w in works],
            )
            for work in works:
                await apply_one(connection, work)
            (pid,) = await connection.fetchrow("SELECT pg_backend_pid()")
            await pool.execute("SELECT pg_terminate_backend($1, 10_000)", pid)
    assert await contents(pool) == before
    await project(pool, history)
    assert len((await contents(pool))["events"]) == EVENTS


@pytest.mark.parametrize("writes", range(1, len(PROJECTIONS) + 1))
async def test_a_projector_cancelled_after_any_write_leaves_all_of_the_batch_or_none(
    pool: Pool, history: list[Recorded], monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    await install(pool, PROJECTIONS)
    before = await contents(pool)
    counted = itertools.count(1)
    write = store.write

    async def write_then_cancel(*arguments: Any) -> None:
        await write(*arguments)
        if next(counted) == writes:
            task.cancel()

    monkeypatch.setattr(store, "write", write_then_cancel)
    task = asyncio.create_task(project(pool, history))
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    await decided(pool)
    found = await contents(pool)
    await project(pool, history)
    whole = await contents(pool)
    assert found == before or (writes == len(PROJECTIONS) and found == whole), "COMMIT was sent"
    assert len(whole["events"]) == EVENTS

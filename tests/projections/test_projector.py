"""The projector follows the log, whatever happens to it, to Postgres, or beside it."""

from __future__ import annotations

import asyncio
from types import MappingProxyType

import msgspec
import pytest

from events import EntityId, Recorded
from events.catalogue.models import ModelRegistered, VersionRetired
from events.memory import MemoryLog
from handlers.projector import Projector
from projections import Pool
from projections.failures import Failure, Outcome, ProjectionStopped, Retry, Skip
from projections.progress import Progress
from projections.projection import On, Projection
from projections.tables import PROJECTIONS
from projections.verify import verify
from projections.working import WorkingSet
from tests.projections.history import FRAUD, LIFE, Writer, life, write_life
from tests.projections.project import contents, events_of, project, projecting, reached, told
from tests.projections.proxies import LogWithForeignMessage


async def test_tables_follow_the_log(pool: Pool, progress: Progress) -> None:
    log = MemoryLog()
    async with projecting(log, pool, progress) as projector:
        last = await write_life(log)
        await reached(progress, last)
        status = await told(projector, last)
    assert (status.state, status.position, status.lag) == ("following", last, 0)
    assert all(report.ok for report in await verify(log=log, pool=pool))


async def test_a_projector_that_starts_again_goes_on_where_it_was(
    pool: Pool, progress: Progress
) -> None:
    log = MemoryLog()
    writer = Writer(log)
    for entity, events in LIFE:
        position = await writer.append(entity, *events)
        async with projecting(log, pool, progress):
            await reached(progress, position)
    assert len((await contents(pool))["events"]) == position
    assert all(report.ok for report in await verify(log=log, pool=pool))


async def test_connections_cut_in_the_middle_of_batches_lose_and_double_nothing(
    pool: Pool, progress: Progress
) -> None:
    log = MemoryLog()
    writer = Writer(log)
    async with projecting(log, pool, progress):
        for entity, events in LIFE:
            position = await writer.append(entity, *events)
            await pool.fetch(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await reached(progress, position)
    assert all(report.ok for report in await verify(log=log, pool=pool))


async def test_several_projectors_at_once_apply_everything_once(
    pool: Pool, progress: Progress
) -> None:
    log = MemoryLog()
    async with (
        projecting(log, pool, progress),
        projecting(log, pool, Progress(pool)),
        projecting(log, pool, Progress(pool)),
    ):
        last = await write_life(log)
        await reached(progress, last)
    assert len((await contents(pool))["events"]) == last
    assert all(report.ok for report in await verify(log=log, pool=pool))


async def test_tables_restored_to_an_older_state_catch_up_by_themselves(
    pool: Pool, progress: Progress
) -> None:
    log = await life()
    history = await events_of(log, await log.position())
    await project(pool, history[:10])
    async with projecting(log, pool, progress):
        await reached(progress, history[-1].position)
    assert all(report.ok for report in await verify(log=log, pool=pool))


async def test_a_message_that_is_no_event_stops_the_projector_and_is_named(
    pool: Pool, progress: Progress
) -> None:
    log = LogWithForeignMessage(7)
    await write_life(log)
    projector = Projector(log=log, pool=pool, progress=progress)
    with pytest.raises(ProjectionStopped, match=r"position 7 on evt\.acme\.model\.fraud: not JSON"):
        await projector.run()
    status = await projector.status()
    assert (status.state, status.position) == ("stopped", 6)
    assert status.error is not None
    assert "position 7" in status.error


async def test_a_message_that_is_no_event_can_be_skipped_on_the_record(
    pool: Pool, progress: Progress
) -> None:
    log = LogWithForeignMessage(7)
    last = await write_life(log)

    def policy(failure: Failure) -> Outcome:
        return Skip("looked at, a test message")

    async with projecting(log, pool, progress, policy=policy) as projector:
        await reached(progress, last)
        status = await told(projector, last)
    assert (status.state, status.skipped) == ("following", len(PROJECTIONS))
    rows = await pool.fetch("SELECT DISTINCT position, reason FROM switchback.skipped")
    assert [tuple(row.values()) for row in rows] == [(7, "looked at, a test message")]
    assert all(report.ok for report in await verify(log=log, pool=pool))


def _versions_that_cannot_retire() -> Projection:
    """A fold with a fault: it changes rows, then fails."""
    (versions,) = (p for p in PROJECTIONS if p.name == "versions")

    def retire(rows: WorkingSet, recorded: Recorded, event: VersionRetired) -> None:
        versions.on[VersionRetired].fold(rows, recorded, event)
        raise ZeroDivisionError("a fault")

    on = MappingProxyType(
        {**versions.on, VersionRetired: On(retire, versions.on[VersionRetired].reads)}
    )
    return msgspec.structs.replace(versions, on=on)


async def test_a_fold_that_fails_stops_before_the_event_and_writes_nothing_of_it(
    pool: Pool, progress: Progress
) -> None:
    log = await life()
    broken = _versions_that_cannot_retire()
    projector = Projector(log=log, pool=pool, progress=progress, projections=[broken])
    with pytest.raises(ProjectionStopped, match="ZeroDivisionError: a fault") as stopped:
        await projector.run()
    assert stopped.value.failure.projection == "versions"
    rows = await pool.fetch("SELECT * FROM switchback.versions WHERE state = 'retired'")
    assert rows == []


async def test_an_event_skipped_by_one_projection_is_applied_by_the_others(
    pool: Pool, progress: Progress
) -> None:
    log = await life()
    last = await log.position()
    broken = _versions_that_cannot_retire()
    others = [p for p in PROJECTIONS if p.name != "versions"]

    def policy(failure: Failure) -> Outcome:
        return Retry(0.0) if failure.attempt < 3 else Skip(f"attempt {failure.attempt}")

    async with projecting(
        log, pool, progress, policy=policy, projections=[broken, *others]
    ) as projector:
        await reached(progress, last)
        assert (await told(projector, last)).skipped == 1
    rows = await pool.fetch("SELECT schema, reason FROM switchback.skipped")
    assert [tuple(row.values()) for row in rows] == [("sb_versions_v1", "attempt 3")]
    states = await pool.fetch("SELECT DISTINCT state FROM switchback.versions")
    assert [row["state"] for row in states] == ["registered"]
    assert len((await contents(pool))["events"]) == last


async def test_an_event_that_postgres_refuses_is_found_among_its_batch(
    pool: Pool, progress: Progress
) -> None:
    log = MemoryLog()
    last = await write_life(log)
    found: list[Failure] = []

    def policy(failure: Failure) -> Outcome:
        found.append(failure)
        return Skip("refused")

    async with projecting(log, pool, progress, policy=policy) as projector:
        await reached(progress, last)
        await pool.execute(
            "ALTER TABLE sb_models_v1.models ADD CONSTRAINT short CHECK (length(name) < 40)"
        )
        names = ["one", "x" * 50, "two"]
        for name in names:
            entity = EntityId("acme", "model", name)
            last = await log.append(entity, [ModelRegistered(name=name)], expected=0)
        await reached(progress, last)
        assert (await told(projector, last)).skipped == 1
    assert [(failure.projection, failure.position) for failure in found] == [("models", last - 1)]
    rows = await pool.fetch("SELECT name FROM switchback.models WHERE name = ANY($1)", names)
    assert {row["name"] for row in rows} == {"one", "two"}


async def test_readers_are_woken_by_a_commit_in_this_process(
    pool: Pool, progress: Progress
) -> None:
    log = MemoryLog()
    async with projecting(log, pool, progress):
        position = await log.append(FRAUD, [ModelRegistered(name="fraud")], expected=0)
        await reached(progress, position)


async def test_readers_elsewhere_see_the_checkpoint_move(pool: Pool, progress: Progress) -> None:
    log = MemoryLog()
    elsewhere = Progress(pool)
    async with projecting(log, pool, progress):
        waiting = asyncio.create_task(reached(elsewhere, 1))
        await log.append(FRAUD, [ModelRegistered(name="fraud")], expected=0)
        await waiting

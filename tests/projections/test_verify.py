"""Verify: drift is found, whatever kind it is, and what is right is said to be right."""

from __future__ import annotations

import pytest

from events.memory import MemoryLog
from projections import Pool
from projections.errors import CheckpointAhead
from projections.tables import PROJECTIONS
from projections.verify import EXAMPLES_MAX, TableReport, verify
from tests.projections.history import life
from tests.projections.project import contents, events_of, project


@pytest.fixture
async def log(pool: Pool) -> MemoryLog:
    log = await life()
    await project(pool, await events_of(log, await log.position()))
    return log


async def wrong(log: MemoryLog, pool: Pool) -> list[TableReport]:
    reports = await verify(log=log, pool=pool)
    return [table for report in reports for table in report.tables if not table.ok]


async def test_tables_that_equal_the_log_are_reported_so(pool: Pool, log: MemoryLog) -> None:
    reports = await verify(log=log, pool=pool)
    assert {report.projection for report in reports} == {p.name for p in PROJECTIONS}
    last = await log.position()
    assert all(report.ok and report.position == last for report in reports)
    rows = {table.table: table.rows for report in reports for table in report.tables}
    assert rows["events"] == last


async def test_one_changed_row_is_found(pool: Pool, log: MemoryLog) -> None:
    await pool.execute(
        "UPDATE sb_endpoints_v2.endpoints SET active = '2.0.0' WHERE tenant = 'acme'"
    )
    (table,) = await wrong(log, pool)
    assert (table.table, table.missing, table.extra) == ("endpoints", [], [])
    assert table.different == ["acme/chat"]


async def test_one_missing_row_is_found(pool: Pool, log: MemoryLog) -> None:
    await pool.execute("DELETE FROM sb_events_v1.events WHERE position = 5")
    (table,) = await wrong(log, pool)
    assert (table.table, table.different, table.extra) == ("events", [], [])
    assert len(table.missing) == 1


async def test_one_extra_row_is_found(pool: Pool, log: MemoryLog) -> None:
    await pool.execute(
        "INSERT INTO sb_aliases_v1.aliases VALUES ('acme', 9, 'fraud', 'forged', '1.0.0')"
    )
    (table,) = await wrong(log, pool)
    assert table.extra == ["acme/fraud/forged"]


async def test_a_null_that_should_be_a_value_is_found(pool: Pool, log: MemoryLog) -> None:
    await pool.execute("UPDATE sb_versions_v1.versions SET parent = NULL WHERE version = '2.0.1'")
    (table,) = await wrong(log, pool)
    assert table.different == ["acme/fraud/2.0.1"]


async def test_differences_are_listed_up_to_a_bound(pool: Pool, log: MemoryLog) -> None:
    await pool.execute("UPDATE sb_events_v1.events SET actor = 'forged'")
    (table,) = await wrong(log, pool)
    assert len(table.different) == EXAMPLES_MAX


async def test_verifying_leaves_nothing_behind(pool: Pool, log: MemoryLog) -> None:
    before = await contents(pool)
    await verify(log=log, pool=pool)
    assert await contents(pool) == before
    assert await pool.fetch("SELECT 1 FROM pg_namespace WHERE nspname LIKE 'scratch%'") == []


async def test_tables_of_another_log_are_not_compared(pool: Pool, log: MemoryLog) -> None:
    with pytest.raises(CheckpointAhead, match="the log ends at 0"):
        await verify(log=MemoryLog(), pool=pool)

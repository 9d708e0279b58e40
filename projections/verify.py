# ruff: noqa: S608 - identifiers come from projection declarations; values are arguments
"""Proving that the tables are what the log says.

The log is folded again into scratch tables, up to the live checkpoint, and every table's content is
compared by hash; where hashes differ the rows are listed. All of it happens inside one transaction
that is rolled back: it sees the live tables as of one moment, blocks neither readers nor the
projector, and leaves nothing behind, also when it is killed.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence, Set
from contextlib import aclosing
from typing import Any, Final

import msgspec

from events.errors import MalformedEvent
from events.event import Position, Recorded
from events.log import EventLog
from projections import store
from projections.apply import fold
from projections.builds import Build, State, builds_in, create_tables
from projections.errors import CheckpointAhead
from projections.pool import Connection, Pool
from projections.projection import Projection
from projections.table import Table
from projections.tables import PROJECTIONS

EXAMPLES_MAX: Final = 20
"""Rows listed for each kind of difference in one table."""
_BATCH_EVENTS_MAX: Final = 2_000


class TableReport(msgspec.Struct, frozen=True, kw_only=True):
    table: str
    rows: int
    """In the live table."""
    content: str
    """Hash of the live table, independent of the order of rows."""
    expected: str
    """Hash of what the log says."""
    missing: list[str]
    """Keys the log says should be there; of this and the next two, the first EXAMPLES_MAX."""
    extra: list[str]
    """Keys of which the log knows nothing."""
    different: list[str]
    """Keys of rows that are not as the log says."""

    @property
    def ok(self) -> bool:
        return self.content == self.expected


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    projection: str
    version: int
    position: Position
    """Live checkpoint: what was compared reflects it."""
    tables: list[TableReport]

    @property
    def ok(self) -> bool:
        return all(table.ok for table in self.tables)


async def verify(
    *, log: EventLog, pool: Pool, projections: Sequence[Projection] = PROJECTIONS
) -> list[Verification]:
    """One report for each live projection. Raises CheckpointAhead, MalformedEvent, FoldFailed."""
    async with pool.transaction() as connection:
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        live = [b for b in await builds_in(connection, projections) if b.state is State.LIVE]
        scratch = {build.schema: f"scratch_{build.schema}" for build in live}
        for build in live:
            await create_tables(connection, build.projection, scratch[build.schema])
        await _check_end(log, live)
        await _fold_again(connection, log, live, scratch)
        reports = [await _compare(connection, build, scratch[build.schema]) for build in live]
        for schema in scratch.values():
            await connection.execute(f'DROP SCHEMA "{schema}" CASCADE')
    return reports


async def _check_end(log: EventLog, live: Sequence[Build]) -> None:
    end = await log.position()
    for build in live:
        if build.position > end:
            raise CheckpointAhead(build.position, end)


async def _fold_again(
    connection: Connection, log: EventLog, live: Sequence[Build], scratch: Mapping[str, str]
) -> None:
    passed = await _passed_over(connection)
    until = max((build.position for build in live), default=0)
    async for batch in _batches(log, until, {position for _, position in passed}):
        for build in live:
            events = [
                recorded
                for recorded in batch
                if recorded.position <= build.position
                and (build.schema, recorded.position) not in passed
            ]
            await _apply(connection, build, scratch[build.schema], events)


async def _apply(
    connection: Connection, build: Build, schema: str, events: Sequence[Recorded]
) -> None:
    projection = build.projection
    rows = await store.load(connection, schema, projection, projection.reads(events))
    fold(projection, rows, events)
    await store.write(connection, schema, projection, rows)


async def _passed_over(connection: Connection) -> set[tuple[str, Position]]:
    rows = await connection.fetch("SELECT schema, position FROM switchback.skipped")
    return {(row["schema"], row["position"]) for row in rows}


async def _batches(
    log: EventLog, until: Position, passed: Set[Position]
) -> AsyncGenerator[Sequence[Recorded], None]:
    """The log up to a position; a message that is no event is fine if it was passed over."""
    after = 0
    while after < until:
        try:
            source = log.subscribe_batches(after=after, batch_max=_BATCH_EVENTS_MAX)
            async with aclosing(source) as batches:
                async for batch in batches:
                    yield batch
                    after = batch[-1].position
                    if after >= until:
                        break
        except MalformedEvent as error:
            if error.position not in passed:
                raise
            after = error.position


async def _compare(connection: Connection, build: Build, scratch: str) -> Verification:
    tables = [
        await _compare_table(connection, table, build.schema, scratch)
        for table in build.projection.tables
    ]
    return Verification(
        projection=build.projection.name,
        version=build.projection.version,
        position=build.position,
        tables=tables,
    )


async def _compare_table(
    connection: Connection, table: Table[Any], live: str, scratch: str
) -> TableReport:
    rows, content = await _content(connection, table, live)
    _, expected = await _content(connection, table, scratch)
    differences: dict[str, list[str]] = {"missing": [], "extra": [], "different": []}
    if content != expected:
        for kind, condition in _DIFFERENCES.items():
            differences[kind] = await _keys(connection, table, live, scratch, condition)
    return TableReport(
        table=table.name, rows=rows, content=content, expected=expected, **differences
    )


_DIFFERENCES: Final = {
    "missing": "live.tenant IS NULL",
    "extra": "said.tenant IS NULL",
    "different": "live.tenant IS NOT NULL AND said.tenant IS NOT NULL AND live::text <> said::text",
}


async def _content(connection: Connection, table: Table[Any], schema: str) -> tuple[int, str]:
    """Row count and hash. Two 64-bit hashes of each row, summed: the order does not matter."""
    row = await connection.fetchrow(
        f"""SELECT count(*), coalesce(sum(hashtextextended(t::text, 0)::numeric), 0)::text
                   || '/' || coalesce(sum(hashtextextended(t::text, 1)::numeric), 0)::text
              FROM "{schema}"."{table.name}" t"""
    )
    assert row is not None
    return row[0], row[1]


async def _keys(
    connection: Connection, table: Table[Any], live: str, scratch: str, condition: str
) -> list[str]:
    using = ", ".join(table.key)
    key = " || '/' || ".join(f"{column}::text" for column in table.key)
    rows = await connection.fetch(
        f"""SELECT {key} AS key
              FROM "{live}"."{table.name}" live FULL JOIN "{scratch}"."{table.name}" said
             USING ({using})
             WHERE {condition} ORDER BY {using} LIMIT {EXAMPLES_MAX}"""
    )
    return [row["key"] for row in rows]

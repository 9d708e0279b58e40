# ruff: noqa: S608 - identifiers come from projection declarations
"""What Postgres does without us, for `switchback bench`: the same rows, none of our code.

Nothing is retried here, and an error of the server ends the measurement.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from projections.tables import PROJECTIONS

_SCHEMA: Final = "bench_ceiling"
_SECONDS_MAX: Final = 120.0


async def copy_of_tables(dsn: str) -> float:
    """Seconds to COPY every row of the live tables into empty ones with the same indexes, in one
    transaction."""
    connection = await asyncpg.connect(dsn, command_timeout=_SECONDS_MAX)
    try:
        schemas = await connection.fetch(
            "SELECT name, schema FROM switchback.checkpoint WHERE state = 'live'"
        )
        await connection.execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")
        await connection.execute(f"CREATE SCHEMA {_SCHEMA}")
        schema_of = {row["name"]: row["schema"] for row in schemas}
        rows: dict[str, list[tuple[object, ...]]] = {}
        for projection in PROJECTIONS:
            for table in projection.tables:
                there = f'"{schema_of[projection.name]}"."{table.name}"'
                await connection.execute(
                    f'CREATE TABLE {_SCHEMA}."{table.name}" (LIKE {there} INCLUDING ALL)'
                )
                found = await connection.fetch(f"SELECT * FROM {there}")
                rows[table.name] = [tuple(record) for record in found]
        began = time.perf_counter()
        async with connection.transaction():
            for name, records in rows.items():
                await connection.copy_records_to_table(name, schema_name=_SCHEMA, records=records)
        return time.perf_counter() - began
    finally:
        await connection.close()


@asynccontextmanager
async def row_inserter(dsn: str) -> AsyncIterator[Callable[[bytes], Awaitable[object]]]:
    """A function that inserts one row and commits it, as durable as read models are."""
    connection = await asyncpg.connect(
        dsn,
        command_timeout=_SECONDS_MAX,
        server_settings={"synchronous_commit": "off"},
    )
    try:
        await connection.execute("CREATE TEMPORARY TABLE bench_rows (body bytea NOT NULL)")
        insert = await connection.prepare("INSERT INTO bench_rows VALUES ($1)")
        yield insert.fetch
    finally:
        await connection.close()

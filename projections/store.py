# ruff: noqa: S608 - statements are put together from table declarations; values are arguments
"""Loading and writing the rows of a batch: one statement per table, whatever the batch's size.

Measured on two cores: unnest upserts 78,000 rows/s, COPY 190,000 rows/s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

from projections.pool import Connection
from projections.projection import Projection
from projections.table import Key, Row, Table
from projections.working import WorkingSet


async def load(
    connection: Connection, schema: str, projection: Projection, reads: Mapping[str, set[Key]]
) -> WorkingSet:
    """The rows that the events of a batch declared to read."""
    rows = WorkingSet()
    for name, keys in reads.items():
        table = projection.table(name)
        records = await connection.fetch(_select(schema, table), *_transposed(sorted(keys)))
        rows.load(table, [table.decode(record) for record in records])
    return rows


async def write(
    connection: Connection, schema: str, projection: Projection, rows: WorkingSet
) -> None:
    """Everything the batch changed."""
    for table in projection.tables:
        changes = rows[table]
        if changes.deleted:
            arguments = _transposed(sorted(changes.deleted))
            await connection.execute(_delete(schema, table), *arguments)
        if changes.changed:
            arguments = _transposed(map(table.values_of, changes.changed))
            await connection.execute(_upsert(schema, table), *arguments)
        if changes.appended:
            await _copy(connection, schema, table, changes.appended)


async def _copy(
    connection: Connection, schema: str, table: Table[Any], rows: Sequence[Row]
) -> None:
    await connection.copy_records_to_table(
        table.name,
        schema_name=schema,
        columns=table.column_names,
        records=[table.values_of(row) for row in rows],
    )


def _transposed(rows: Iterable[Sequence[Any]]) -> list[list[Any]]:
    """Rows as columns, which is what unnest takes."""
    return [list(column) for column in zip(*rows, strict=True)]


@cache
def _select(schema: str, table: Table[Any]) -> str:
    columns = ", ".join(f'"{name}"' for name in table.column_names)
    return (
        f'SELECT {columns} FROM "{schema}"."{table.name}"'
        f" WHERE ({', '.join(table.lookup)}) IN ({_unnested(table, table.lookup)})"
    )


@cache
def _delete(schema: str, table: Table[Any]) -> str:
    return (
        f'DELETE FROM "{schema}"."{table.name}"'
        f" WHERE ({', '.join(table.key)}) IN ({_unnested(table, table.key)})"
    )


@cache
def _upsert(schema: str, table: Table[Any]) -> str:
    columns = ", ".join(f'"{name}"' for name in table.column_names)
    others = [name for name in table.column_names if name not in table.key]
    updates = ", ".join(f'"{name}" = EXCLUDED."{name}"' for name in others)
    return (
        f'INSERT INTO "{schema}"."{table.name}" ({columns})'
        f" {_unnested(table, table.column_names)}"
        f" ON CONFLICT ({', '.join(table.key)}) DO UPDATE SET {updates}"
    )


def _unnested(table: Table[Any], names: Sequence[str]) -> str:
    columns = table.columns_named(names)
    arrays = ", ".join(f"${i}::{c.array_type}" for i, c in enumerate(columns, start=1))
    return f"SELECT * FROM unnest({arrays})"

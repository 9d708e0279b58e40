"""What tables hold, as plain values that compare and print the same wherever they come from."""

# ruff: noqa: S608 - identifiers come from projection declarations

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, Final, TypeAlias

import msgspec

from projections import Pool
from projections.projection import Projection
from projections.table import Column, Table
from projections.tables import PROJECTIONS

Tables: TypeAlias = dict[str, list[dict[str, Any]]]
"""Table name -> its rows as JSON values, in order of their key."""
_EXACT_MAX: Final = 2**53
"""Beyond, a float is no exact integer, and neither is shown as one."""


def plain_rows(table: Table[Any], rows: Iterable[Iterable[Any]]) -> list[dict[str, Any]]:
    """Rows, each as the driver takes and gives it, as JSON values in order of their key."""
    plain = [_plain(table, row) for row in rows]
    return sorted(plain, key=itemgetter(*table.key))


async def read_tables(pool: Pool, projections: Sequence[Projection] = PROJECTIONS) -> Tables:
    """What the live tables hold, all tenants together. Raises DatabaseError."""
    return {
        table.name: await _read(pool, table)
        for projection in projections
        for table in projection.tables
    }


async def _read(pool: Pool, table: Table[Any]) -> list[dict[str, Any]]:
    columns = ", ".join(f'"{name}"' for name in table.column_names)
    return plain_rows(table, await pool.fetch(f'SELECT {columns} FROM switchback."{table.name}"'))


def _plain(table: Table[Any], row: Iterable[Any]) -> dict[str, Any]:
    return {
        column.name: _value(column, value) for column, value in zip(table.columns, row, strict=True)
    }


def _value(column: Column, value: Any) -> Any:
    text = value if column.sql_type == "jsonb" and value is not None else msgspec.json.encode(value)
    return json.loads(text, parse_int=_number)


def _number(digits: str) -> int | float:
    """jsonb writes a large float without its exponent, as an integer it never was."""
    number = int(digits)
    return number if abs(number) <= _EXACT_MAX else float(digits)

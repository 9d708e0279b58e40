"""The working set of a batch: the rows its events touch, in memory, each written once after it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Generic

from projections.table import Key, R, Table


class Rows(Generic[R]):
    """The rows of one table that a batch may read, and what the batch makes of them."""

    def __init__(self, table: Table[R], loaded: Iterable[R] = ()) -> None:
        self._table = table
        self._rows: dict[Key, R] = {}
        self._keys_by_lookup: dict[Key, set[Key]] = {}
        self._changed: dict[Key, None] = {}  # a set that keeps its order
        self.appended: list[R] = []
        """What was added to an append-only table, in order."""
        for row in loaded:
            self._place(row)

    def get(self, key: Key) -> R | None:
        """The row as it is after the events so far. It must be among the declared reads."""
        return self._rows.get(key)

    def matching(self, lookup: Key) -> list[R]:
        """The rows whose lookup columns have these values."""
        return [self._rows[key] for key in sorted(self._keys_by_lookup.get(lookup, ()))]

    def put(self, row: R) -> None:
        """Insert the row, or replace the one with its key."""
        self._changed[self._place(row)] = None

    def append(self, row: R) -> None:
        """Add a row to an append-only table."""
        self.appended.append(row)

    def delete(self, key: Key) -> None:
        """Remove the row; silent if there is none."""
        row = self._rows.pop(key, None)
        if row is not None:
            self._keys_by_lookup[self._table.lookup_of(row)].discard(key)
        self._changed[key] = None

    @property
    def changed(self) -> list[R]:
        """Rows to insert or replace."""
        return [self._rows[key] for key in self._changed if key in self._rows]

    @property
    def deleted(self) -> list[Key]:
        """Keys to remove."""
        return [key for key in self._changed if key not in self._rows]

    def _place(self, row: R) -> Key:
        key = self._table.key_of(row)
        self._rows[key] = row
        self._keys_by_lookup.setdefault(self._table.lookup_of(row), set()).add(key)
        return key


class WorkingSet:
    """The rows of all tables of one projection, by table."""

    def __init__(self) -> None:
        self._rows: dict[str, Rows[Any]] = {}

    def __getitem__(self, table: Table[R]) -> Rows[R]:
        rows = self._rows.get(table.name)
        if rows is None:
            rows = self._rows[table.name] = Rows(table)
        return rows

    def load(self, table: Table[R], rows: Iterable[R]) -> None:
        """Start a table from what the database holds."""
        self._rows[table.name] = Rows(table, rows)

"""What a projection is: a name, a version, tables, and what each kind of event does to their rows.

Folds are pure. They get the rows that the event declared to read and change them in memory; loading
before and writing after are the same for every projection (`projections.store`), set-based, once
per row and batch. So a fold needs no SQL, and splitting the log into other batches changes nothing.

A changed fold or table needs a new `version`: it is built beside the old one and switched to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from events.event import Event, Recorded
from projections.table import Key, Table
from projections.working import WorkingSet

Fold: TypeAlias = Callable[[WorkingSet, Recorded, Any], None]
"""(rows, recorded, recorded.event) -> None, changing rows."""
Read: TypeAlias = tuple[Table[Any], Key]
"""The rows of a table whose lookup columns have these values."""


def _nothing(recorded: Recorded) -> Iterable[Read]:
    return ()


class On(msgspec.Struct, frozen=True):
    """What one kind of event does."""

    fold: Fold
    reads: Callable[[Recorded], Iterable[Read]] = _nothing
    """The rows the fold may `get` or find `matching`."""


class Cached(msgspec.Struct, frozen=True):
    """The table whose rows are kept in Redis; its key is (tenant, id)."""

    table: Table[Any]
    shows: type[msgspec.Struct]
    """What a query answers with; its fields are among the row's."""


class Projection(msgspec.Struct, frozen=True, kw_only=True):
    """One read model."""

    name: str
    version: int
    tables: tuple[Table[Any], ...]
    """Each has a view of its name in schema `switchback`."""
    on: Mapping[type[Event], On]
    """Other events leave the tables as they are."""
    cached: Cached | None = None

    def reads(self, batch: Sequence[Recorded]) -> dict[str, set[Key]]:
        """Table name -> lookups of all rows the batch needs."""
        wanted: dict[str, set[Key]] = {}
        for recorded in batch:
            on = self.on.get(type(recorded.event))
            if on is not None:
                for table, key in on.reads(recorded):
                    wanted.setdefault(table.name, set()).add(key)
        return wanted

    def fold(self, rows: WorkingSet, recorded: Recorded) -> None:
        """One event, into rows."""
        on = self.on.get(type(recorded.event))
        if on is not None:
            on.fold(rows, recorded, recorded.event)

    def table(self, name: str) -> Table[Any]:
        return next(table for table in self.tables if table.name == name)

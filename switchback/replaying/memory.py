"""A log folded in memory: the routing that gateways would have, and the rows of every table.

Pure apart from reading the file: no server, no clock. The same log gives the same answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from events import EntityId, Position, Recorded
from events.memory import MemoryLog
from events.recordings import decode_recording, is_traffic
from handlers.routing import Routing
from projections.projection import Projection
from projections.table import Row, Table
from projections.tables import PROJECTIONS
from projections.working import WorkingSet
from switchback.replaying.contents import Tables, plain_rows


class EventRefused(Exception):
    """An event that is well-formed, but cannot follow what came before it."""

    def __init__(self, recorded: Recorded, reason: str) -> None:
        super().__init__(
            f"event {recorded.position} ({recorded.event.type} of {recorded.entity}): {reason}"
        )
        self.position = recorded.position
        self.reason = reason


class Replayed:
    """What a log ends in."""

    def __init__(self, routing: Routing, tables: Tables, events: int) -> None:
        self.routing = routing
        """As a gateway folds it."""
        self.tables = tables
        self.events = events


class RoutingFold:
    """The part of a replay that gateways do; remembers which entities there are."""

    def __init__(self) -> None:
        self.routing = Routing()
        self.entities: dict[str, set[EntityId]] = {}
        """Aggregate -> its entities."""
        self.events = 0

    @property
    def position(self) -> Position:
        return self.routing.position

    def apply(self, recorded: Recorded) -> None:
        """Raises EventRefused; then the fold is of no further use."""
        try:
            self.routing.apply(recorded)
        except Exception as error:  # a bad log can break a fold in any way
            raise EventRefused(recorded, _reason(error)) from error
        self.entities.setdefault(recorded.entity.aggregate, set()).add(recorded.entity)
        self.events += 1


class TablesFold:
    """The part of a replay that the projector does, without Postgres."""

    def __init__(self) -> None:
        self._rows = {projection.name: WorkingSet() for projection in PROJECTIONS}

    def apply(self, recorded: Recorded) -> None:
        """Raises EventRefused; then the fold is of no further use."""
        for projection in PROJECTIONS:
            try:
                projection.fold(self._rows[projection.name], recorded)
            except Exception as error:  # a bad log can break a fold in any way
                reason = f"projection {projection.name}: {_reason(error)}"
                raise EventRefused(recorded, reason) from error

    @cached_property
    def tables(self) -> Tables:
        """The rows. Ask when everything is applied."""
        return {
            table.name: plain_rows(table, map(table.values_of, self.rows(projection, table)))
            for projection in PROJECTIONS
            for table in projection.tables
        }

    def rows(self, projection: Projection, table: Table[Any]) -> list[Row]:
        """The rows of one table, in no order."""
        rows = self._rows[projection.name][table]
        return [*rows.changed, *rows.appended]  # nothing was loaded: what is there has changed


def replay(events: Iterable[Recorded]) -> Replayed:
    """Fold a whole log. Raises EventRefused, and what reading the events raises."""
    routing, tables = RoutingFold(), TablesFold()
    for recorded in events:
        routing.apply(recorded)
        tables.apply(recorded)
    return Replayed(routing.routing, tables.tables, routing.events)


def read_log(path: Path) -> Iterator[Recorded]:
    """The events of a JSONL log. Traffic windows that stand between them are left out.

    Raises MalformedEvent with the line's number as its position, OSError.
    """
    return (recorded for recorded in read_traffic_log(path) if not is_traffic(recorded))


def read_traffic_log(path: Path) -> Iterator[Recorded]:
    """The events of a JSONL log, and the traffic windows between them. Raises as `read_log`."""
    with path.open("rb") as file:
        yield from decode_recording(file, name=str(path))


class LoadedLog(MemoryLog):
    """A log in memory that begins with events of another; nothing is written back."""

    def __init__(self, events: Iterable[Recorded]) -> None:
        super().__init__()
        for recorded in events:
            self._show(recorded)


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"

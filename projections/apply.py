"""Applying a batch of events to builds: one transaction, exactly once.

Checkpoints first: moving them takes their locks and proves that nobody else applied the batch or
took the build away. Then each build loads what its folds read, folds in memory, and writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from events.catalogue import AGGREGATES
from events.event import Event, Position, Recorded
from projections import store
from projections.builds import Build, Move, move
from projections.errors import FoldFailed
from projections.pool import Connection, Pool
from projections.projection import Projection
from projections.working import WorkingSet

_aggregate_of: Final[dict[type[Event], str]] = {
    event: aggregate for aggregate, events in AGGREGATES.items() for event in events
}


class Skipped(msgspec.Struct, frozen=True, kw_only=True):
    """An event that a build was told to pass over."""

    schema: str
    position: Position
    subject: str
    reason: str
    time: datetime


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What one build is to apply."""

    build: Build
    events: Sequence[Recorded]
    """Those after the build's position, in order, without the skipped ones."""
    target: Position
    """The build's position afterwards."""
    skips: Sequence[Skipped] = ()


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A build after a batch, and the rows that the batch changed."""

    build: Build
    before: Position
    """Where the build was."""
    skipped: int
    """Events of the batch that it was told to pass over."""
    rows: WorkingSet


async def apply(pool: Pool, works: Sequence[Work]) -> list[Applied]:
    """Apply all works or none.

    Raises CheckpointMoved, FoldFailed, and the errors of `Pool.transaction`; after any of them but
    CommitOutcomeUnknown nothing has changed.
    """
    async with pool.transaction() as connection:
        await move(connection, [_move(work) for work in works])
        return [await apply_one(connection, work) for work in works]


async def apply_one(connection: Connection, work: Work) -> Applied:
    """One work, in a transaction that has moved its checkpoint."""
    build = work.build
    reads = build.projection.reads(work.events)
    rows = await store.load(connection, build.schema, build.projection, reads)
    fold(build.projection, rows, work.events)
    await store.write(connection, build.schema, build.projection, rows)
    if work.skips:
        await _record(connection, work.skips)
    moved = msgspec.structs.replace(build, position=work.target)
    return Applied(build=moved, before=build.position, skipped=len(work.skips), rows=rows)


def fold(projection: Projection, rows: WorkingSet, events: Sequence[Recorded]) -> None:
    """Events into rows, in order. Raises FoldFailed, which names the event."""
    on = projection.on
    for recorded in events:
        step = on.get(type(recorded.event))
        if step is None:
            continue
        try:
            _check_place(recorded)
            step.fold(rows, recorded, recorded.event)
        except Exception as error:
            raise FoldFailed(
                projection.name,
                recorded.position,
                recorded.entity.subject,
                f"{type(error).__name__}: {error}",
            ) from error


def _check_place(recorded: Recorded) -> None:
    if recorded.entity.aggregate != _aggregate_of[type(recorded.event)]:
        raise ValueError(f"{recorded.event.type} is no event of a {recorded.entity.aggregate}")


def _move(work: Work) -> Move:
    return Move(schema=work.build.schema, expected=work.build.position, target=work.target)


async def _record(connection: Connection, skips: Sequence[Skipped]) -> None:
    await connection.executemany(
        "INSERT INTO switchback.skipped (schema, position, subject, reason, time)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        [(s.schema, s.position, s.subject, s.reason, s.time) for s in skips],
    )

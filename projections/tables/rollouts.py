"""Rollouts: every one an endpoint was ever in, how far it is or how it ended, and on what evidence.

A rollout is over with RolloutCompleted or RolloutAborted; what the latter leads to (RolledBack,
PolicySet) says nothing more about it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from types import MappingProxyType
from typing import TypeAlias

from msgspec.structs import replace

from events.catalogue.endpoints import (
    Analysis,
    RolloutAborted,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutHeld,
    RolloutResumed,
    RolloutStarted,
    Step,
    Verdict,
)
from events.event import Position, Recorded
from projections.projection import On, Projection, Read
from projections.table import Key, Row, Table
from projections.working import WorkingSet


class RolloutRow(Row, frozen=True, kw_only=True):
    endpoint: str
    id: str
    baseline: str
    candidate: str
    state: str
    """`running`, `held`, `completed` or `aborted`."""
    step: int
    weight: float
    steps: tuple[Step, ...]
    analysis: Analysis
    hold_until: datetime | None
    held_reason: str | None
    reason: str | None
    detail: str | None
    verdicts: tuple[Verdict, ...]
    started_at: datetime
    ended_at: datetime | None
    updated_at: datetime
    started_position: Position
    """Rollouts are listed by it, the newest first."""


_Change: TypeAlias = Callable[[RolloutRow], RolloutRow]
_AfterStart: TypeAlias = (
    RolloutAdvanced | RolloutHeld | RolloutResumed | RolloutCompleted | RolloutAborted
)

ROLLOUTS = Table(
    "rollouts",
    RolloutRow,
    key=("tenant", "endpoint", "id"),
    indexes=[("tenant", "endpoint", "started_position")],
)


def _started(rows: WorkingSet, recorded: Recorded, event: RolloutStarted) -> None:
    rows[ROLLOUTS].put(
        RolloutRow(
            tenant=recorded.entity.tenant,
            position=recorded.position,
            endpoint=recorded.entity.id,
            id=event.rollout_id,
            baseline=event.baseline,
            candidate=event.candidate,
            state="running",
            step=0,
            weight=event.steps[0].weight,
            steps=event.steps,
            analysis=event.analysis,
            hold_until=event.hold_until,
            held_reason=None,
            reason=None,
            detail=None,
            verdicts=(),
            started_at=recorded.time,
            ended_at=None,
            updated_at=recorded.time,
            started_position=recorded.position,
        )
    )


def _advanced(rows: WorkingSet, recorded: Recorded, event: RolloutAdvanced) -> None:
    def advance(row: RolloutRow) -> RolloutRow:
        return replace(
            row,
            state="running",
            step=event.step,
            weight=row.steps[event.step].weight,
            hold_until=event.hold_until,
            held_reason=None,
            verdicts=event.verdicts or row.verdicts,
        )

    _update(rows, recorded, advance)


def _held(rows: WorkingSet, recorded: Recorded, event: RolloutHeld) -> None:
    def hold(row: RolloutRow) -> RolloutRow:
        return replace(
            row,
            state="held",
            hold_until=None,
            held_reason=event.reason,
            verdicts=event.verdicts or row.verdicts,
        )

    _update(rows, recorded, hold)


def _resumed(rows: WorkingSet, recorded: Recorded, event: RolloutResumed) -> None:
    def resume(row: RolloutRow) -> RolloutRow:
        return replace(row, state="running", hold_until=event.hold_until, held_reason=None)

    _update(rows, recorded, resume)


def _completed(rows: WorkingSet, recorded: Recorded, event: RolloutCompleted) -> None:
    def complete(row: RolloutRow) -> RolloutRow:
        completed = _ended(row, recorded, event)
        return replace(completed, state="completed", weight=100.0)

    _update(rows, recorded, complete)


def _aborted(rows: WorkingSet, recorded: Recorded, event: RolloutAborted) -> None:
    def abort(row: RolloutRow) -> RolloutRow:
        aborted = _ended(row, recorded, event)
        return replace(aborted, state="aborted", weight=0.0, detail=event.detail)

    _update(rows, recorded, abort)


def _ended(
    row: RolloutRow, recorded: Recorded, event: RolloutCompleted | RolloutAborted
) -> RolloutRow:
    return replace(
        row,
        hold_until=None,
        held_reason=None,
        reason=event.reason,
        verdicts=event.verdicts or row.verdicts,
        ended_at=recorded.time,
    )


def _update(rows: WorkingSet, recorded: Recorded, change: _Change) -> None:
    row = rows[ROLLOUTS].get(_key(recorded))
    if row is not None:
        changed = replace(change(row), position=recorded.position, updated_at=recorded.time)
        rows[ROLLOUTS].put(changed)


def _key(recorded: Recorded) -> Key:
    event = recorded.event
    assert isinstance(event, _AfterStart)
    return recorded.entity.tenant, recorded.entity.id, event.rollout_id


def _rollout_row(recorded: Recorded) -> Iterable[Read]:
    yield ROLLOUTS, _key(recorded)


PROJECTION = Projection(
    name="rollouts",
    version=1,
    tables=(ROLLOUTS,),
    on=MappingProxyType(
        {
            RolloutStarted: On(_started),
            RolloutAdvanced: On(_advanced, _rollout_row),
            RolloutHeld: On(_held, _rollout_row),
            RolloutResumed: On(_resumed, _rollout_row),
            RolloutCompleted: On(_completed, _rollout_row),
            RolloutAborted: On(_aborted, _rollout_row),
        }
    ),
)

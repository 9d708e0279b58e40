"""The audit: every event as a row, by tenant and position."""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType
from uuid import UUID

from events.catalogue import BY_TYPE
from events.event import Event, Recorded
from projections.projection import On, Projection
from projections.table import Row, Table
from projections.working import WorkingSet


class EventRow(Row, frozen=True, kw_only=True):
    id: UUID
    type: str
    aggregate: str
    entity: str
    time: datetime
    actor: str
    correlation_id: str
    causation_id: str | None
    traceparent: str | None
    data: Event


EVENTS = Table(
    "events",
    EventRow,
    key=("tenant", "position"),
    indexes=[("tenant", "aggregate", "entity", "position")],
    append_only=True,
)


def _record(rows: WorkingSet, recorded: Recorded, event: Event) -> None:
    entity = recorded.entity
    rows[EVENTS].append(
        EventRow(
            tenant=entity.tenant,
            position=recorded.position,
            id=recorded.id,
            type=event.type,
            aggregate=entity.aggregate,
            entity=entity.id,
            time=recorded.time,
            actor=recorded.actor,
            correlation_id=recorded.correlation_id,
            causation_id=recorded.causation_id,
            traceparent=recorded.traceparent,
            data=event,
        )
    )


PROJECTION = Projection(
    name="events",
    version=1,
    tables=(EVENTS,),
    on=MappingProxyType({event: On(_record) for event in BY_TYPE.values()}),
)

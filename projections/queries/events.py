"""The audit: events of a tenant as CloudEvents, in order."""

# ruff: noqa: S608 - statements are put together from constants of this file; values are arguments

from __future__ import annotations

from typing import Final

from events.codec import CloudEvent
from events.event import EntityId, Position
from projections.queries.paging import page
from projections.reader import Query, Reader
from projections.results import Page

_COLUMNS: Final = """
    '1.0' AS specversion, id, '/switchback/' || tenant AS source, type,
    aggregate || '/' || entity AS subject, time, 'application/json' AS datacontenttype, actor,
    correlation_id AS correlationid, causation_id AS causationid, traceparent, data, position"""
_EVENTS: Final = Query(
    CloudEvent,
    reads=["events"],
    sql=f"""SELECT {_COLUMNS} FROM switchback.events
             WHERE tenant = $1 AND position > $2
             ORDER BY position LIMIT $3::bigint + 1""",
)
_EVENTS_OF_ENTITY: Final = Query(
    CloudEvent,
    reads=["events"],
    sql=f"""SELECT {_COLUMNS} FROM switchback.events
             WHERE tenant = $1 AND position > $2 AND aggregate = $4 AND entity = $5
             ORDER BY position LIMIT $3::bigint + 1""",
)


class EventQueries:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def list(
        self,
        tenant: str,
        *,
        after: Position = 0,
        limit: int = 100,
        entity: EntityId | None = None,
        min_position: Position = 0,
    ) -> Page[CloudEvent]:
        """After a position; of one entity if it is given (its tenant is `tenant`)."""
        if entity is None:
            items = await self._reader.rows(
                _EVENTS, tenant, after, limit, min_position=min_position
            )
        else:
            items = await self._reader.rows(
                _EVENTS_OF_ENTITY,
                tenant,
                after,
                limit,
                entity.aggregate,
                entity.id,
                min_position=min_position,
            )
        return page(items, limit=limit, cursor=lambda event: str(event.position))

"""Endpoints as they are now."""

# ruff: noqa: S608 - statements are put together from constants of this file; values are arguments

from __future__ import annotations

from typing import Final

from events.event import Position
from projections.cache import Cache
from projections.queries.cached import CachedRow
from projections.queries.paging import page
from projections.reader import Query, Reader
from projections.results import Endpoint, Page
from projections.tables.endpoints import PROJECTION

_COLUMNS: Final = """
    name, model, policy, active, previous, rollout, swap, alerts, created_at, updated_at,
    position"""
_ENDPOINT: Final = Query(
    Endpoint,
    reads=["endpoints"],
    sql=f"SELECT {_COLUMNS} FROM switchback.endpoints WHERE tenant = $1 AND name = $2",
)
_ENDPOINTS: Final = Query(
    Endpoint,
    reads=["endpoints"],
    sql=f"""SELECT {_COLUMNS} FROM switchback.endpoints
             WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3::bigint + 1""",
)


class EndpointQueries:
    def __init__(self, reader: Reader, cache: Cache | None = None) -> None:
        self._reader = reader
        self._endpoint = CachedRow(
            reader, cache, projection=PROJECTION, query=_ENDPOINT, item=Endpoint
        )

    async def get(self, tenant: str, name: str, *, min_position: Position = 0) -> Endpoint | None:
        return await self._endpoint.get(tenant, name, min_position=min_position)

    async def list(
        self, tenant: str, *, after: str = "", limit: int = 100, min_position: Position = 0
    ) -> Page[Endpoint]:
        """By name."""
        items = await self._reader.rows(_ENDPOINTS, tenant, after, limit, min_position=min_position)
        return page(items, limit=limit, cursor=lambda endpoint: endpoint.name)

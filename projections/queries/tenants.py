"""Tenants and their keys."""

from __future__ import annotations

from typing import Final

from events.event import Position
from projections.queries.paging import page
from projections.reader import Query, Reader
from projections.results import Key, Page, Tenant

_TENANT: Final = Query(
    Tenant,
    reads=["tenants"],
    sql="""SELECT tenant AS id, name, quota, created_at, position
             FROM switchback.tenants WHERE tenant = $1""",
)
_KEYS: Final = Query(
    Key,
    reads=["tenants"],
    sql="""SELECT key_id AS id, scopes, issued_at, expires_at, revoked_at,
                  tokens_per_minute, position
             FROM switchback.keys WHERE tenant = $1 AND key_id > $2
            ORDER BY key_id LIMIT $3::bigint + 1""",
)


class TenantQueries:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def get(self, tenant: str, *, min_position: Position = 0) -> Tenant | None:
        return await self._reader.first(_TENANT, tenant, min_position=min_position)

    async def keys(
        self, tenant: str, *, after: str = "", limit: int = 100, min_position: Position = 0
    ) -> Page[Key]:
        """By id. Revoked and expired ones are included and say so."""
        items = await self._reader.rows(_KEYS, tenant, after, limit, min_position=min_position)
        return page(items, limit=limit, cursor=lambda key: key.id)

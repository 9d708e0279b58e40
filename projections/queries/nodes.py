"""Nodes and what is resident on them: nodes are for all to see, residency is each tenant's own."""
# ruff: noqa: S608 - statements are put together from constants of this file; values are arguments

from __future__ import annotations

from typing import Final

from events.event import Position
from projections.queries.paging import page
from projections.reader import Query, Reader
from projections.results import Node, Page

_COLUMNS: Final = """
    n.node AS id, n.state, n.runtimes, n.memory_budget_bytes, n.memory_used_bytes,
    n.updated_at, n.position,
    (SELECT coalesce(json_agg(r ORDER BY r.tenant, r.model, r.version), '[]') FROM (
        SELECT tenant, model, version, memory_bytes FROM switchback.residency
         WHERE (tenant = $1 OR $1 = 'system') AND node = n.node AND state = 'resident') r)
        AS resident"""
_NODE: Final = Query(
    Node,
    reads=["nodes"],
    sql=f"""SELECT {_COLUMNS} FROM switchback.nodes n
             WHERE n.tenant = 'system' AND n.node = $2""",
)
_NODES: Final = Query(
    Node,
    reads=["nodes"],
    sql=f"""SELECT {_COLUMNS} FROM switchback.nodes n
             WHERE n.tenant = 'system' AND n.node > $2 ORDER BY n.node LIMIT $3::bigint + 1""",
)


class NodeQueries:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def get(self, tenant: str, node: str, *, min_position: Position = 0) -> Node | None:
        return await self._reader.first(_NODE, tenant, node, min_position=min_position)

    async def list(
        self, tenant: str, *, after: str = "", limit: int = 100, min_position: Position = 0
    ) -> Page[Node]:
        """By id. Tenant `system` sees what is resident of every tenant."""
        items = await self._reader.rows(_NODES, tenant, after, limit, min_position=min_position)
        return page(items, limit=limit, cursor=lambda node: node.id)

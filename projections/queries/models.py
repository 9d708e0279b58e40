"""Models, versions, lineage and aliases."""

# ruff: noqa: S608 - statements are put together from constants of this file; values are arguments

from __future__ import annotations

from typing import Final

from events.event import Position
from projections.cache import Cache
from projections.queries.cached import CachedRow
from projections.queries.paging import page
from projections.reader import Query, Reader
from projections.results import Alias, AliasMove, Lineage, Model, Page, Version
from projections.tables.models import PROJECTION

_MODEL_COLUMNS: Final = "name, description, labels, aliases, registered_at, position"
_MODEL: Final = Query(
    Model,
    reads=["models"],
    sql=f"SELECT {_MODEL_COLUMNS} FROM switchback.models WHERE tenant = $1 AND name = $2",
)
_MODELS: Final = Query(
    Model,
    reads=["models"],
    sql=f"""SELECT {_MODEL_COLUMNS} FROM switchback.models
             WHERE tenant = $1 AND name > $2 ORDER BY name LIMIT $3::bigint + 1""",
)
_VERSION_COLUMNS: Final = """
    v.model, v.version, v.runtime, v.config, v.artifact, v.parent, v.memory_bytes, v.labels,
    v.metrics, v.state, v.registered_at, v.position,
    (SELECT coalesce(json_agg(r ORDER BY r.node), '[]') FROM (
        SELECT node, state, memory_bytes, load_ms, reason, detail FROM switchback.residency
         WHERE tenant = v.tenant AND model = v.model AND version = v.version) r) AS residency"""
_VERSION: Final = Query(
    Version,
    reads=["versions", "nodes"],
    sql=f"""SELECT {_VERSION_COLUMNS} FROM switchback.versions v
             WHERE v.tenant = $1 AND v.model = $2 AND v.version = $3""",
)
_VERSIONS: Final = Query(
    Version,
    reads=["versions", "nodes"],
    sql=f"""SELECT {_VERSION_COLUMNS} FROM switchback.versions v
             WHERE v.tenant = $1 AND v.model = $2 AND v.registered_position > coalesce((
                   SELECT registered_position FROM switchback.versions
                    WHERE tenant = $1 AND model = $2 AND version = $3), 0)
             ORDER BY v.registered_position LIMIT $4::bigint + 1""",
)
# A version has one parent, so the way up is a chain and the way down a tree; UNION (without ALL)
# would end on a cycle, which decisions refuse, because distance is not part of the step.
_LINEAGE: Final = Query(
    Lineage,
    reads=["versions", "lineage"],
    sql="""
        WITH RECURSIVE up AS (
            SELECT parent AS name, 1 AS distance, ARRAY[child] AS seen
              FROM switchback.lineage WHERE tenant = $1 AND child = $2 || '@' || $3
            UNION ALL
            SELECT l.parent, up.distance + 1, up.seen || l.child
              FROM up JOIN switchback.lineage l ON l.tenant = $1 AND l.child = up.name
             WHERE NOT l.child = ANY(up.seen)
        ), down AS (
            SELECT child AS name, 1 AS distance, position, ARRAY[parent] AS seen
              FROM switchback.lineage WHERE tenant = $1 AND parent = $2 || '@' || $3
            UNION ALL
            SELECT l.child, down.distance + 1, l.position, down.seen || l.parent
              FROM down JOIN switchback.lineage l ON l.tenant = $1 AND l.parent = down.name
             WHERE NOT l.parent = ANY(down.seen)
        )
        SELECT coalesce((SELECT json_agg(name ORDER BY distance) FROM up), '[]') AS ancestors,
               coalesce((SELECT json_agg(name ORDER BY distance, position) FROM down), '[]')
                   AS descendants
          FROM switchback.versions WHERE tenant = $1 AND model = $2 AND version = $3""",
)
_ALIAS: Final = Query(
    Alias,
    reads=["aliases"],
    sql="""SELECT model, alias, version, position FROM switchback.aliases
            WHERE tenant = $1 AND model = $2 AND alias = $3""",
)
_ALIAS_HISTORY: Final = Query(
    AliasMove,
    reads=["aliases"],
    sql="""SELECT who, at AS when, from_version AS from, to_version AS to, position
             FROM switchback.alias_history
            WHERE tenant = $1 AND model = $2 AND alias = $3 AND position > $4
            ORDER BY position LIMIT $5::bigint + 1""",
)


class ModelQueries:
    def __init__(self, reader: Reader, cache: Cache | None = None) -> None:
        self._reader = reader
        self._model = CachedRow(reader, cache, projection=PROJECTION, query=_MODEL, item=Model)

    async def get(self, tenant: str, name: str, *, min_position: Position = 0) -> Model | None:
        return await self._model.get(tenant, name, min_position=min_position)

    async def list(
        self, tenant: str, *, after: str = "", limit: int = 100, min_position: Position = 0
    ) -> Page[Model]:
        """By name."""
        items = await self._reader.rows(_MODELS, tenant, after, limit, min_position=min_position)
        return page(items, limit=limit, cursor=lambda model: model.name)

    async def version(
        self, tenant: str, model: str, version: str, *, min_position: Position = 0
    ) -> Version | None:
        return await self._reader.first(_VERSION, tenant, model, version, min_position=min_position)

    async def versions(
        self,
        tenant: str,
        model: str,
        *,
        after: str = "",
        limit: int = 100,
        min_position: Position = 0,
    ) -> Page[Version]:
        """In the order of registration; `after` is a version."""
        items = await self._reader.rows(
            _VERSIONS, tenant, model, after, limit, min_position=min_position
        )
        return page(items, limit=limit, cursor=lambda version: version.version)

    async def lineage(
        self, tenant: str, model: str, version: str, *, min_position: Position = 0
    ) -> Lineage | None:
        """None when the version is not registered."""
        return await self._reader.first(_LINEAGE, tenant, model, version, min_position=min_position)

    async def alias(
        self, tenant: str, model: str, alias: str, *, min_position: Position = 0
    ) -> Alias | None:
        return await self._reader.first(_ALIAS, tenant, model, alias, min_position=min_position)

    async def alias_history(
        self,
        tenant: str,
        model: str,
        alias: str,
        *,
        after: Position = 0,
        limit: int = 100,
        min_position: Position = 0,
    ) -> Page[AliasMove]:
        """Every move, oldest first; `after` is a position. Empty if the alias never was."""
        items = await self._reader.rows(
            _ALIAS_HISTORY, tenant, model, alias, after, limit, min_position=min_position
        )
        return page(items, limit=limit, cursor=lambda move: str(move.position))

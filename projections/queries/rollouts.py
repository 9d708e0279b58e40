"""Rollouts of an endpoint, under way and ended."""

# ruff: noqa: S608 - statements are put together from constants of this file; values are arguments

from __future__ import annotations

from typing import Final

from events.event import Position
from projections.queries.paging import page
from projections.reader import Query, Reader
from projections.results import Page, Rollout

_COLUMNS: Final = """
    id, endpoint, baseline, candidate, state, step, weight, steps, analysis, hold_until,
    held_reason, reason, detail, verdicts, started_at, ended_at, updated_at, position"""
_ROLLOUT: Final = Query(
    Rollout,
    reads=["rollouts"],
    sql=f"""SELECT {_COLUMNS} FROM switchback.rollouts
             WHERE tenant = $1 AND endpoint = $2 AND id = $3""",
)
_ROLLOUTS: Final = Query(
    Rollout,
    reads=["rollouts"],
    sql=f"""SELECT {_COLUMNS} FROM switchback.rollouts
             WHERE tenant = $1 AND endpoint = $2 AND ($3 = '' OR started_position < (
                   SELECT started_position FROM switchback.rollouts
                    WHERE tenant = $1 AND endpoint = $2 AND id = $3))
             ORDER BY started_position DESC LIMIT $4::bigint + 1""",
)


class RolloutQueries:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader

    async def get(
        self, tenant: str, endpoint: str, id: str, *, min_position: Position = 0
    ) -> Rollout | None:
        return await self._reader.first(_ROLLOUT, tenant, endpoint, id, min_position=min_position)

    async def list(
        self,
        tenant: str,
        endpoint: str,
        *,
        after: str = "",
        limit: int = 100,
        min_position: Position = 0,
    ) -> Page[Rollout]:
        """The newest first; `after` is a rollout's id, and what is not one has nothing after it.

        A rollout that starts meanwhile moves no page: it comes before the first.
        """
        items = await self._reader.rows(
            _ROLLOUTS, tenant, endpoint, after, limit, min_position=min_position
        )
        return page(items, limit=limit, cursor=lambda rollout: rollout.id)

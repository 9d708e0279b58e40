"""Rebuilding a projection from the log, beside the live tables, while they are read and written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

import msgspec

from events.event import Position
from events.log import EventLog
from projections.applier import Applier, moved
from projections.builds import Build, begin, discard, install, switch
from projections.cache import Cache
from projections.errors import UnknownProjection
from projections.failures import stop_always
from projections.pool import Pool
from projections.projection import Projection
from projections.tables import PROJECTIONS

_BATCH_EVENTS_MAX = 2_000


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    projection: str
    version: int
    position: Position
    """What the new tables reflect."""


async def rebuild(
    name: str,
    *,
    log: EventLog,
    pool: Pool,
    cache: Cache | None = None,
    progress: Callable[[Position], None] = lambda position: None,
    projections: Sequence[Projection] = PROJECTIONS,
) -> Rebuilt:
    """Build the tables anew and switch to them; the old ones are dropped.

    Whoever reads meanwhile sees the old tables, then the new ones. On any error the old ones stay.
    Raises UnknownProjection, ProjectionStopped, and the errors of the log and the pool.
    """
    projection = next((p for p in projections if p.name == name), None)
    if projection is None:
        raise UnknownProjection(name)
    await install(pool, projections)
    build = await begin(pool, projection)
    try:
        build = await _catch_up(build, log, pool, progress)
    except BaseException:
        await discard(pool, build)
        raise
    if cache is not None and projection.cached is not None:
        await cache.begin(projection, build.position)
    return Rebuilt(projection=name, version=projection.version, position=build.position)


async def _catch_up(
    build: Build, log: EventLog, pool: Pool, progress: Callable[[Position], None]
) -> Build:
    if await switch(pool, build):
        return build
    applier = Applier(pool, policy=stop_always, now=lambda: datetime.now(UTC))
    async with aclosing(log.subscribe_batches(batch_max=_BATCH_EVENTS_MAX)) as batches:
        async for batch in batches:
            (build,) = moved([build], await applier.apply([build], batch))
            progress(build.position)
            if await switch(pool, build):
                break
    return build

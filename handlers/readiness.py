"""What `/readyz` says: the state of each part of this process."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from events import EventLog, LogError, Position
from handlers.following import Follower
from handlers.http.views import Part
from handlers.projector import Projector
from handlers.routing import Routing
from handlers.worker import NodeWorker
from projections.cache import Cache

LOG_SECONDS: Final = 1.0


class Readiness:
    """Looks at each part when asked. A gateway stays ready while the log, the tables or the cache
    are away: it routes by what it knows, and says `degraded`."""

    def __init__(
        self,
        *,
        log: EventLog,
        routing: Routing,
        follower: Follower,
        projector: Projector | None,
        cache: Cache,
        worker: NodeWorker | None,
    ) -> None:
        self._log = log
        self._routing = routing
        self._follower = follower
        self._projector = projector
        self._cache = cache
        self._worker = worker
        self._cache_errors = 0

    async def parts(self) -> Mapping[str, Part]:
        """Part -> its state; those this process does not have are missing."""
        head = await self._head()
        parts = {"log": _log_part(head), "routing": self._routing_part(head)}
        parts["cache"] = self._cache_part()
        if self._projector is not None:
            parts["tables"] = await _tables_part(self._projector)
        if self._worker is not None:
            parts["node"] = _node_part(self._worker)
        return parts

    async def _head(self) -> Position | None:
        try:
            async with asyncio.timeout(LOG_SECONDS):
                return await self._log.position()
        except (LogError, TimeoutError):
            return None

    def _routing_part(self, head: Position | None) -> Part:
        position = self._routing.position
        if not position and not self._follower.following:
            return Part(state="down", required=True, detail="nothing is folded yet")
        return Part(
            state="ok" if self._follower.following else "degraded",
            required=True,
            position=position,
            lag=max(0, head - position) if head is not None else None,
            skipped=self._follower.passed_over,
        )

    def _cache_part(self) -> Part:
        """Degraded if Redis failed since somebody last asked."""
        errors = self._cache.stats.errors
        before, self._cache_errors = self._cache_errors, errors
        if errors > before:
            return Part(state="degraded", required=False, detail="reads fall through to Postgres")
        return Part(state="ok", required=False)


def _log_part(head: Position | None) -> Part:
    if head is None:
        return Part(state="degraded", required=True, detail="no commands until it answers")
    return Part(state="ok", required=True, position=head)


async def _tables_part(projector: Projector) -> Part:
    status = await projector.status()
    stopped = status.state == "stopped"
    return Part(
        state="down" if stopped else "ok" if status.state == "following" else "degraded",
        required=stopped,
        detail=status.error,
        position=status.position,
        lag=status.lag,
        skipped=status.skipped,
    )


def _node_part(worker: NodeWorker) -> Part:
    if worker.announced:
        return Part(state="ok", required=True)
    return Part(state="degraded", required=True, detail="not joined")

"""The read side: everything the HTTP layer reads, one module per resource.

Every read names its tenant and may name the least position it must reflect; it then waits up to two
seconds for the projector and raises StalePosition after that. A missing thing is None, an unknown
tenant's list is empty. Also raises DatabaseUnavailable and DatabaseTimeout.
"""

from __future__ import annotations

import asyncio
from typing import Final

from events.event import Position
from projections.cache import Cache
from projections.queries.endpoints import EndpointQueries
from projections.queries.events import EventQueries
from projections.queries.models import ModelQueries
from projections.queries.nodes import NodeQueries
from projections.queries.rollouts import RolloutQueries
from projections.queries.tenants import TenantQueries
from projections.reader import Reader
from projections.tables import PROJECTIONS

_NAMES: Final = tuple(projection.name for projection in PROJECTIONS)


class Queries:
    """All queries over one reader: `queries.endpoints.get("acme", "chat", min_position=42)`."""

    def __init__(self, reader: Reader, *, cache: Cache | None = None) -> None:
        self._reader = reader
        self.models = ModelQueries(reader, cache)
        self.endpoints = EndpointQueries(reader, cache)
        self.rollouts = RolloutQueries(reader)
        self.nodes = NodeQueries(reader)
        self.events = EventQueries(reader)
        self.tenants = TenantQueries(reader)

    async def caught_up(self, position: Position, *, within_s: float) -> bool:
        """Whether every table came to reflect the position in time. Never raises."""
        deadline = asyncio.get_running_loop().time() + within_s
        return await self._reader.progress.wait(_NAMES, position, deadline=deadline)


__all__ = ["Queries"]

"""A log that seems to end early, and gives out its events one by one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from datetime import datetime

from events import Append, EntityId, EventLog, Metadata, Position, Recorded
from events.log import ALL_EVENTS


class UpTo(EventLog):
    """Another log, up to a position."""

    def __init__(self, log: EventLog, until: Position) -> None:
        self._log = log
        self._until = until
        self.handed_out = asyncio.Event()
        """Set when the last event has been asked for."""

    async def subscribe_batches(
        self, pattern: str = ALL_EVENTS, *, after: Position = 0, batch_max: int = 500
    ) -> AsyncIterator[Sequence[Recorded]]:
        events = self._log.subscribe_batches(pattern, after=after, batch_max=1)
        async with aclosing(events) as batches:  # type: ignore[type-var]
            async for batch in batches:
                if batch[0].position > self._until:
                    break
                if batch[0].position == self._until:
                    self.handed_out.set()
                yield batch
        await asyncio.Event().wait()

    async def append_all(
        self, appends: Sequence[Append], *, metadata: Metadata | None = None
    ) -> Position:
        raise AssertionError("nothing is written during a replay")

    async def restore(self, recorded: Sequence[Recorded]) -> Position:
        raise AssertionError("nothing is written during a replay")

    def read(
        self, entity: EntityId, *, after: Position = 0, since: datetime | None = None
    ) -> AsyncIterator[Recorded]:
        return self._log.read(entity, after=after, since=since)

    async def position(self) -> Position:
        return min(self._until, await self._log.position())

    async def close(self) -> None:
        """The other log stays open."""

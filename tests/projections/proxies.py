"""A log that behaves badly in chosen places."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from events import MalformedEvent, Position, Recorded
from events.log import ALL_EVENTS
from events.memory import MemoryLog


class LogWithForeignMessage(MemoryLog):
    """At one position stands something that is no event."""

    def __init__(self, position: Position) -> None:
        super().__init__()
        self._foreign = position

    async def subscribe_batches(
        self, pattern: str = ALL_EVENTS, *, after: Position = 0, batch_max: int = 500
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        async for batch in super().subscribe_batches(pattern, after=after, batch_max=batch_max):
            before = [recorded for recorded in batch if recorded.position < self._foreign]
            if after < self._foreign <= batch[-1].position:
                if before:
                    yield before
                raise MalformedEvent(self._foreign, "evt.acme.model.fraud", "not JSON")
            yield batch

"""The log in memory: for tests, simulations and replays. Gone with the process.

Events pass through the codec on their way in, so what a reader gets is what it would get from any
other log. One event loop only.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import dropwhile
from uuid import UUID

from events import codec
from events.drafts import Draft, draft
from events.errors import LogUnavailable, WrongExpectedPosition
from events.event import UNCHECKED, Append, EntityId, Metadata, Position, Recorded
from events.log import ALL_EVENTS, EventLog
from events.subjects import subject_matcher


class MemoryLog(EventLog):
    """Positions count from 1; the event at position p is item p - 1 of a list."""

    def __init__(self) -> None:
        self._recorded: list[Recorded] = []
        self._subjects: list[str] = []
        self._of_entity: dict[str, list[Position]] = {}
        self._position_of: dict[UUID, Position] = {}
        self._writing = asyncio.Lock()
        self._grown = asyncio.Event()
        self._closed = False

    async def append_all(
        self, appends: Sequence[Append], *, metadata: Metadata | None = None
    ) -> Position:
        drafts = draft(appends, metadata or Metadata())
        async with self._writing:
            self._check_open()
            earlier = self._appended_earlier(drafts)
            if earlier is not None:
                return earlier
            self._check_expectations(drafts)
            self._write(self._positioned(drafts))
            return len(self._recorded)

    async def restore(self, recorded: Sequence[Recorded]) -> Position:
        if not recorded:
            return await self.position()
        async with self._writing:
            self._check_open()
            for position, event in enumerate(recorded, start=len(self._recorded) + 1):
                if event.position != position:
                    raise ValueError(f"position {event.position} where {position} comes next")
            self._write(recorded)
            return len(self._recorded)

    async def read(
        self, entity: EntityId, *, after: Position = 0, since: datetime | None = None
    ) -> AsyncGenerator[Recorded, None]:
        positions = self._of_entity.get(entity.subject, [])
        found = [self._recorded[p - 1] for p in positions[bisect_right(positions, after) :]]
        for recorded in dropwhile(lambda each: since is not None and each.time < since, found):
            yield recorded

    async def subscribe_batches(
        self, pattern: str = ALL_EVENTS, *, after: Position = 0, batch_max: int = 500
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        matches = subject_matcher(pattern)
        while True:
            self._check_open()
            grown = self._grown
            until = min(len(self._recorded), after + batch_max)
            batch = [
                self._recorded[index]
                for index in range(after, until)
                if matches(self._subjects[index])
            ]
            if until > after:
                after = until
            else:
                await grown.wait()
            if batch:
                yield batch

    async def position(self) -> Position:
        return len(self._recorded)

    async def close(self) -> None:
        """Subscriptions end with LogUnavailable; what was appended can still be read."""
        async with self._writing:
            self._closed = True
            self._wake_subscriptions()

    def _persist(self, recorded: Sequence[Recorded]) -> None:
        """Keep events before anyone sees them; what fails here has not happened."""

    def _write(self, recorded: Sequence[Recorded]) -> None:
        self._persist(recorded)
        for event in recorded:
            self._show(event)
        self._wake_subscriptions()

    def _show(self, event: Recorded) -> None:
        subject = event.entity.subject
        self._recorded.append(event)
        self._subjects.append(subject)
        self._of_entity.setdefault(subject, []).append(event.position)
        self._position_of[event.id] = event.position

    def _wake_subscriptions(self) -> None:
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def _check_open(self) -> None:
        if self._closed:
            raise LogUnavailable("the log is closed")

    def _appended_earlier(self, drafts: Sequence[Draft]) -> Position | None:
        """A repeat may have decided on other events than the first time, which is what counts."""
        position: Position | None = None
        for message in (message for part in drafts for message in part.messages):
            known = self._position_of.get(message.id)
            if known is None:
                break
            position = known
        return position

    def _check_expectations(self, drafts: Sequence[Draft]) -> None:
        for part in drafts:
            actual = self._of_entity.get(part.subject, [0])[-1]
            if part.expected is not UNCHECKED and part.expected != actual:
                raise WrongExpectedPosition(part.entity, part.expected, actual)

    def _positioned(self, drafts: Sequence[Draft]) -> list[Recorded]:
        bodies = [(part.subject, message.body) for part in drafts for message in part.messages]
        return [
            codec.decode(body, position=position, subject=subject)
            for position, (subject, body) in enumerate(bodies, start=len(self._recorded) + 1)
        ]


@asynccontextmanager
async def open_memory_log() -> AsyncIterator[MemoryLog]:
    """An empty log, closed at the end."""
    log = MemoryLog()
    try:
        yield log
    finally:
        await log.close()

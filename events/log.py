"""The EventLog port: the one way to write and read events.

Guarantees of every implementation (the contract suite in tests/events/test_log_contract.py holds
each to them): an append is all or nothing; it happens only if every entity is where it was
expected; appending the same command again returns the position of the first time, whatever happened
in between; events of one entity have no gap and no fork; a subscription delivers every event after
its start once, in order of position. Does not guarantee: that a read right after an append sees it
on another replica. The conditional append makes that harmless for decisions; readers who care wait
for a position.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Final

from events.event import Append, EntityId, Event, Expected, Metadata, Position, Recorded

ALL_EVENTS: Final = "evt.>"
"""The pattern of every event of every tenant."""
ALL_TRAFFIC: Final = "obs.>"
"""The pattern of every traffic window, and of every report of tokens, of every tenant."""

EVENT_BYTES_MAX: Final = 1_000_000
"""One encoded event; NATS refuses a message over 1 MiB."""
APPEND_EVENTS_MAX: Final = 1_000
"""Events in one append; NATS refuses a longer atomic batch."""


class EventLog(ABC):
    """An ordered, append-only sequence of events."""

    async def append(
        self,
        entity: EntityId,
        events: Sequence[Event],
        *,
        expected: Expected,
        metadata: Metadata | None = None,
    ) -> Position:
        """Append `events` to one entity; the position of the last of them.

        Raises WrongExpectedPosition (nothing was written), EventTooLarge (likewise),
        LogUnavailable, AppendOutcomeUnknown.
        """
        part = Append(entity=entity, events=events, expected=expected)
        return await self.append_all([part], metadata=metadata)

    @abstractmethod
    async def append_all(
        self, appends: Sequence[Append], *, metadata: Metadata | None = None
    ) -> Position:
        """Append to several entities, all or nothing; the position of the last event.

        Each entity may be named once. Raises as `append` does.
        """

    @abstractmethod
    def read(
        self, entity: EntityId, *, after: Position = 0, since: datetime | None = None
    ) -> AsyncGenerator[Recorded, None]:
        """The entity's events after a position, oldest first, up to now. Raises MalformedEvent.

        With `since`, which has a time zone, from the first of them that was recorded at or after
        that time; what was recorded before it is not read. When an event was recorded, the log
        says by its own clock: JetStream by when the stream's leader stored it, other logs by
        `Recorded.time`. So whatever was appended at or after `since` is there, unless that clock is
        behind the caller's; and what is there may tell of an earlier time, as a repeated append and
        a restored event do. A caller who means the time of what an event tells of asks for a little
        more, and leaves out what is too old.
        """

    @abstractmethod
    def subscribe_batches(
        self, pattern: str = ALL_EVENTS, *, after: Position = 0, batch_max: int = 500
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        """Every event whose subject matches, after a position, then live, for ever.

        A batch holds what is there already, at least one event and at most `batch_max`; nothing
        waits for a batch to fill. `pattern` is a NATS subject pattern (`*`, `>`). Survives loss of
        the connection without gap or repeat. Raises MalformedEvent when a message is not one of our
        events, after all batches before it; resume with `after=error.position` to skip it.
        """

    async def subscribe(
        self, pattern: str = ALL_EVENTS, *, after: Position = 0
    ) -> AsyncGenerator[Recorded, None]:
        """As `subscribe_batches`, one event at a time."""
        async with aclosing(self.subscribe_batches(pattern, after=after)) as batches:
            async for batch in batches:
                for recorded in batch:
                    yield recorded

    @abstractmethod
    async def position(self) -> Position:
        """The position of the last event in the log, 0 when it is empty. Asked of the leader."""

    async def begin(self) -> Position:
        """The position after which the events stand that there still are: 0, unless the log drops
        old ones, as that of traffic windows does."""
        return 0

    @abstractmethod
    async def restore(self, recorded: Sequence[Recorded]) -> Position:
        """Write events of another log verbatim, ids, times, actors and positions included.

        For imports: the first must stand at `position() + 1` and the rest follow without a gap,
        else ValueError and nothing is written. All or nothing; at most APPEND_EVENTS_MAX. Raises
        LogUnavailable, AppendOutcomeUnknown (ask `position()` how far it came).
        """

    @abstractmethod
    async def close(self) -> None:
        """Let go of everything. Appends under way are finished first."""

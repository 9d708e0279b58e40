"""Events and entities that the tests of this package share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from datetime import datetime

from events import EntityId, EventLog, Position, Recorded
from events.catalogue.models import AliasMoved, ModelRegistered, VersionRetired

FRAUD = EntityId("acme", "model", "fraud")
SPAM = EntityId("acme", "model", "spam")
OTHER_TENANT = EntityId("globex", "model", "fraud")
CHAT = EntityId("acme", "endpoint", "chat")


def registered(name: str = "fraud") -> ModelRegistered:
    return ModelRegistered(name=name, description="a model", labels={"team": "risk"})


def moved(version: str) -> AliasMoved:
    return AliasMoved(alias="live", to_version=version)


def retired(version: str) -> VersionRetired:
    return VersionRetired(version=version)


async def history(log: EventLog, entity: EntityId, *, until: Position = 0) -> list[Recorded]:
    """The entity's events, from a replica that has those up to `until`."""
    while True:
        recorded = [event async for event in log.read(entity)]
        if not until or (recorded and recorded[-1].position >= until):
            return recorded
        await asyncio.sleep(0)


async def positions(
    log: EventLog,
    entity: EntityId,
    *,
    after: Position = 0,
    since: datetime | None = None,
    until: Position = 0,
) -> list[Position]:
    """Where the events stand that are read so, from a replica that has those up to `until`."""
    while True:
        found = [event.position async for event in log.read(entity, after=after, since=since)]
        if not until or (found and found[-1] >= until):
            return found
        await asyncio.sleep(0)


async def first(
    log: EventLog, count: int, pattern: str = "evt.>", *, after: Position = 0
) -> list[Recorded]:
    """The first `count` events of a subscription."""
    taken: list[Recorded] = []
    async with aclosing(log.subscribe(pattern, after=after)) as events:
        async for recorded in events:
            taken.append(recorded)
            if len(taken) == count:
                break
    return taken


async def until(holds: Callable[[], bool]) -> None:
    """Returns when something that happens elsewhere has happened."""
    while not holds():  # noqa: ASYNC110 - what is waited for has no event to wait on
        await asyncio.sleep(0.001)

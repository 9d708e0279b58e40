"""Questions about an endpoint: the right answer for every moment, and nothing read twice."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest

from events import EntityId, Position, Recorded
from events.memory import MemoryLog
from handlers.questions import NoSuchEndpoint, Questions
from handlers.routing import Routing
from tests.projections.history import CHAT, LIFE, Writer

NOW = datetime(2026, 3, 2, tzinfo=UTC)


class WatchedLog(MemoryLog):
    """Notes how much of an entity is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.read_after: list[Position] = []

    async def read(
        self, entity: EntityId, *, after: Position = 0, since: datetime | None = None
    ) -> AsyncGenerator[Recorded, None]:
        self.read_after.append(after)
        async for recorded in super().read(entity, after=after, since=since):
            yield recorded


def questions(log: MemoryLog) -> Questions:
    return Questions(log=log, routing=Routing(), receipt_secret=b"s" * 32, now=lambda: NOW)


async def positions_of_chat(log: MemoryLog) -> list[Position]:
    return [recorded.position async for recorded in MemoryLog.read(log, CHAT)]


async def test_an_endpoint_is_read_on_from_where_it_was_known() -> None:
    log = WatchedLog()
    writer = Writer(log)
    asking = questions(log)
    for entity, events in LIFE:
        await writer.append(entity, *events)
        if entity == CHAT:
            await asking.endpoint_at("acme", endpoint="chat")
    chat = await positions_of_chat(log)
    assert log.read_after[0] == 0
    assert set(log.read_after[1:]) < set(chat)
    assert log.read_after == sorted(set(log.read_after))


async def test_what_is_known_and_what_is_read_anew_agree_at_every_position() -> None:
    log = MemoryLog()
    writer = Writer(log)
    for entity, events in LIFE:
        await writer.append(entity, *events)
    chat = await positions_of_chat(log)
    experienced = questions(log)
    for order in (chat, list(reversed(chat)), chat):
        for position in order:
            anew = await questions(log).endpoint_at("acme", endpoint="chat", at=position)
            assert anew.position == position
            assert await experienced.endpoint_at("acme", endpoint="chat", at=position) == anew


async def test_a_time_is_answered_from_the_log_alone() -> None:
    log = MemoryLog()
    writer = Writer(log)
    for entity, events in LIFE:
        await writer.append(entity, *events)
    asking = questions(log)
    await asking.endpoint_at("acme", endpoint="chat")
    history = [recorded async for recorded in log.read(CHAT)]
    for recorded in history:
        then = await asking.endpoint_at("acme", endpoint="chat", at=recorded.time)
        assert then.position == max(r.position for r in history if r.time <= recorded.time)


async def test_an_endpoint_then_shows_the_rollout_that_was_under_way() -> None:
    log = MemoryLog()
    writer = Writer(log)
    for entity, events in LIFE:
        await writer.append(entity, *events)
    asking = questions(log)
    seen: list[tuple[str, str, float]] = []
    for position in await positions_of_chat(log):
        rollout = (await asking.endpoint_at("acme", endpoint="chat", at=position)).rollout
        if rollout is not None:
            seen.append((rollout.id, rollout.state, rollout.weight))
    assert seen == [
        ("r1", "running", 5.0),
        ("r1", "running", 50.0),
        ("r1", "held", 50.0),
        ("r2", "running", 5.0),
        ("r2", "held", 5.0),
        ("r2", "running", 5.0),
    ]


async def test_before_its_creation_there_is_no_endpoint() -> None:
    log = MemoryLog()
    writer = Writer(log)
    for entity, events in LIFE:
        await writer.append(entity, *events)
    asking = questions(log)
    created, *_ = await positions_of_chat(log)
    await asking.endpoint_at("acme", endpoint="chat")
    with pytest.raises(NoSuchEndpoint):
        await asking.endpoint_at("acme", endpoint="chat", at=created - 1)
    with pytest.raises(NoSuchEndpoint):
        await asking.endpoint_at("acme", endpoint="other")

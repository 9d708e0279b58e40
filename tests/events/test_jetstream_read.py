"""Reading traffic windows by time: only what is asked for travels, however long the history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from events import UNCHECKED, EntityId, EventLog, Metadata, Position
from events.catalogue.traffic import Units, VersionWindow, WindowObserved
from events.jetstream import JetStream
from events.log import APPEND_EVENTS_MAX
from tests.events.examples import positions

CHAT = EntityId("acme", "traffic", "chat")
SEARCH = EntityId("acme", "traffic", "search")
START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


def window(second: int) -> WindowObserved:
    return WindowObserved(
        gateway="g1",
        start=START + timedelta(seconds=second),
        versions={"1.0.0": VersionWindow(requests=second, units=Units(seen=second))},
        policy=7,
    )


async def observe(log: EventLog, entity: EntityId, seconds: range) -> Position:
    windows = [window(second) for second in seconds]
    return await log.append(entity, windows, expected=UNCHECKED)


@pytest.fixture
def traffic(jetstream: JetStream) -> EventLog:
    return jetstream.traffic


async def test_windows_are_read_since_a_time(traffic: EventLog) -> None:
    await observe(traffic, CHAT, range(5))
    await observe(traffic, SEARCH, range(5))
    since = datetime.now(UTC)
    await observe(traffic, CHAT, range(5, 8))
    last = await observe(traffic, SEARCH, range(5, 8))
    assert len(await positions(traffic, SEARCH, since=since, until=last)) == 3
    found = [r.event async for r in traffic.read(CHAT, since=since)]
    assert found == [window(second) for second in range(5, 8)]


async def test_windows_before_the_time_do_not_travel(
    traffic: EventLog, jetstream: JetStream
) -> None:
    for begin in range(0, 3 * APPEND_EVENTS_MAX, APPEND_EVENTS_MAX):
        await observe(traffic, CHAT, range(begin, begin + APPEND_EVENTS_MAX))
    since = datetime.now(UTC)
    last = await observe(traffic, CHAT, range(2))
    received = jetstream.calls.client.stats["in_msgs"]
    assert await positions(traffic, CHAT, since=since, until=last) == [last - 1, last]
    assert jetstream.calls.client.stats["in_msgs"] - received < 20


async def test_reading_on_after_a_position_nothing_travels_again(
    traffic: EventLog, jetstream: JetStream
) -> None:
    """As one does who follows a rollout: the time is when it began, the position where he is."""
    since = datetime.now(UTC)
    known = await observe(traffic, CHAT, range(APPEND_EVENTS_MAX))
    last = await observe(traffic, CHAT, range(2))
    received = jetstream.calls.client.stats["in_msgs"]
    found = await positions(traffic, CHAT, since=since, after=known, until=last)
    assert found == [last - 1, last]
    assert await positions(traffic, CHAT, since=since, after=last) == []
    assert jetstream.calls.client.stats["in_msgs"] - received < 20


async def test_control_without_a_time_they_all_travel(
    traffic: EventLog, jetstream: JetStream
) -> None:
    last = await observe(traffic, CHAT, range(APPEND_EVENTS_MAX))
    received = jetstream.calls.client.stats["in_msgs"]
    assert len(await positions(traffic, CHAT, until=last)) == APPEND_EVENTS_MAX
    assert jetstream.calls.client.stats["in_msgs"] - received >= APPEND_EVENTS_MAX


async def test_a_window_is_found_by_when_it_was_stored_not_by_what_it_tells_of(
    traffic: EventLog,
) -> None:
    """A gateway that could not reach the log appends old windows late, with their own time."""
    since = datetime.now(UTC)
    late = Metadata(time=START)
    last = await traffic.append(CHAT, [window(0)], expected=UNCHECKED, metadata=late)
    assert await positions(traffic, CHAT, since=since, until=last) == [last]

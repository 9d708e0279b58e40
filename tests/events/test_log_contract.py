"""What every log promises: in memory, in a file, on JetStream with one and three replicas."""

from __future__ import annotations

import asyncio
import io
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from events import (
    UNCHECKED,
    Append,
    EntityId,
    EventLog,
    LogUnavailable,
    Metadata,
    Recorded,
    WrongExpectedPosition,
)
from events.errors import EventTooLarge, LogNotEmpty
from events.event import Event
from events.files import export_events, import_events
from events.log import APPEND_EVENTS_MAX, EVENT_BYTES_MAX
from events.memory import MemoryLog
from tests.events.examples import (
    CHAT,
    FRAUD,
    OTHER_TENANT,
    SPAM,
    first,
    history,
    moved,
    positions,
    registered,
    retired,
)

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)


async def test_an_empty_log_is_at_position_0(log: EventLog) -> None:
    assert await log.position() == 0
    assert await history(log, FRAUD) == []


async def test_an_event_is_read_as_it_was_appended(log: EventLog) -> None:
    metadata = Metadata(
        time=datetime(2026, 3, 29, 1, 30, 0, 123456, tzinfo=UTC),
        actor="key:k1",
        correlation_id="conversation",
        causation_id="cause",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    )
    position = await log.append(FRAUD, [registered()], expected=0, metadata=metadata)
    assert await history(log, FRAUD, until=position) == [
        Recorded(
            position=1,
            entity=FRAUD,
            event=registered(),
            id=metadata.event_id(0),
            time=metadata.time,
            actor="key:k1",
            correlation_id="conversation",
            causation_id="cause",
            traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
    ]


async def test_positions_count_over_all_entities(log: EventLog) -> None:
    assert await log.append(FRAUD, [registered()], expected=0) == 1
    assert await log.append(SPAM, [registered("spam"), moved("1")], expected=0) == 3
    assert await log.append(FRAUD, [moved("1")], expected=1) == 4
    assert await log.position() == 4
    assert [r.position for r in await history(log, FRAUD, until=4)] == [1, 4]


async def test_a_lost_race_carries_both_sides_and_writes_nothing(log: EventLog) -> None:
    await log.append(FRAUD, [registered()], expected=0)
    with pytest.raises(WrongExpectedPosition) as lost:
        await log.append(FRAUD, [moved("1"), moved("2")], expected=0)
    assert (lost.value.entity, lost.value.expected, lost.value.actual) == (FRAUD, 0, 1)
    assert await log.position() == 1


async def test_an_expectation_about_the_future_is_wrong(log: EventLog) -> None:
    with pytest.raises(WrongExpectedPosition) as lost:
        await log.append(FRAUD, [registered()], expected=7)
    assert lost.value.actual == 0


async def test_of_many_who_expect_the_same_one_wins(log: EventLog) -> None:
    outcomes = await asyncio.gather(
        *(log.append(FRAUD, [moved(str(n))], expected=0) for n in range(40)),
        return_exceptions=True,
    )
    assert [o for o in outcomes if not isinstance(o, WrongExpectedPosition)] == [1]
    assert await log.position() == 1


async def test_concurrent_appends_to_many_entities_each_happen_once(log: EventLog) -> None:
    entities = [EntityId("acme", "model", f"m{n}") for n in range(150)]
    positions = await asyncio.gather(
        *(log.append(entity, [registered(entity.id)], expected=0) for entity in entities)
    )
    assert sorted(positions) == list(range(1, 151))
    recorded = await first(log, 150)
    assert {r.entity: r.position for r in recorded} == dict(zip(entities, positions, strict=True))


async def test_repeating_a_command_returns_the_first_position(log: EventLog) -> None:
    command = Metadata()
    assert await log.append(FRAUD, [registered()], expected=0, metadata=command) == 1
    assert await log.append(FRAUD, [registered()], expected=0, metadata=command) == 1
    assert await log.position() == 1


async def test_repeating_a_command_after_others_have_written(log: EventLog) -> None:
    command = Metadata()
    await log.append(FRAUD, [registered()], expected=0)
    await log.append(FRAUD, [moved("1"), moved("2")], expected=1, metadata=command)
    await log.append(SPAM, [registered("spam")], expected=0)
    await log.append(FRAUD, [moved("3"), moved("4")], expected=3)
    assert await log.append(FRAUD, [moved("1"), moved("2")], expected=1, metadata=command) == 3
    assert await log.position() == 6


async def test_repeating_a_command_with_a_later_but_stale_expectation(log: EventLog) -> None:
    command = Metadata()
    await log.append(FRAUD, [registered()], expected=0, metadata=command)
    await log.append(FRAUD, [moved("1")], expected=1)
    await log.append(FRAUD, [moved("2")], expected=2)
    assert await log.append(FRAUD, [registered()], expected=2, metadata=command) == 1
    assert await log.position() == 3


async def test_a_repeat_that_decides_otherwise_changes_nothing(log: EventLog) -> None:
    command = Metadata()
    await log.append(FRAUD, [registered(), moved("1")], expected=0, metadata=command)
    await log.append(FRAUD, [moved("2")], expected=2)
    three = [registered(), moved("1"), moved("2")]
    assert await log.append(FRAUD, three, expected=0, metadata=command) == 2
    assert await log.position() == 3


async def test_repeating_at_the_same_time_happens_once(log: EventLog) -> None:
    command = Metadata()
    positions = await asyncio.gather(
        *(log.append(FRAUD, [registered()], expected=0, metadata=command) for _ in range(20))
    )
    assert positions == [1] * 20
    assert await log.position() == 1


async def test_several_entities_are_written_together(log: EventLog) -> None:
    command = Metadata()
    parts = [
        Append(entity=FRAUD, events=[registered(), moved("1")], expected=0),
        Append(entity=SPAM, events=[registered("spam")], expected=0),
    ]
    assert await log.append_all(parts, metadata=command) == 3
    assert await log.append_all(parts, metadata=command) == 3
    recorded = await first(log, 3)
    assert [(r.entity, r.id) for r in recorded] == [
        (FRAUD, command.event_id(0)),
        (FRAUD, command.event_id(1)),
        (SPAM, command.event_id(2)),
    ]


async def test_several_entities_are_all_or_nothing(log: EventLog) -> None:
    await log.append(SPAM, [registered("spam")], expected=0)
    with pytest.raises(WrongExpectedPosition) as lost:
        await log.append_all(
            [
                Append(entity=FRAUD, events=[registered()], expected=0),
                Append(entity=SPAM, events=[moved("1")], expected=0),
            ]
        )
    assert (lost.value.entity, lost.value.actual) == (SPAM, 1)
    assert await log.position() == 1
    assert await history(log, FRAUD) == []


async def test_an_unchecked_append_expects_nothing(log: EventLog) -> None:
    await asyncio.gather(
        *(log.append(CHAT, [moved(str(n))], expected=UNCHECKED) for n in range(60))
    )
    assert await log.position() == 60
    assert len(await history(log, CHAT, until=60)) == 60


async def test_repeating_an_unchecked_append_at_once_happens_once(log: EventLog) -> None:
    command = Metadata()
    await log.append(CHAT, [moved("1")], expected=UNCHECKED, metadata=command)
    await log.append(CHAT, [moved("2")], expected=UNCHECKED)
    assert await log.append(CHAT, [moved("1")], expected=UNCHECKED, metadata=command) == 1
    assert await log.position() == 2


async def test_the_longest_append_is_whole(log: EventLog) -> None:
    events = [moved(str(n)) for n in range(APPEND_EVENTS_MAX)]
    assert await log.append(FRAUD, events, expected=0) == APPEND_EVENTS_MAX
    recorded = await history(log, FRAUD, until=APPEND_EVENTS_MAX)
    assert [r.event for r in recorded] == events


@pytest.mark.parametrize(
    "appends",
    [
        [],
        [Append(entity=FRAUD, events=[], expected=0)],
        [Append(entity=FRAUD, events=[moved("1")] * (APPEND_EVENTS_MAX + 1), expected=0)],
        [
            Append(entity=FRAUD, events=[moved("1")], expected=0),
            Append(entity=FRAUD, events=[moved("2")], expected=1),
        ],
    ],
    ids=["nothing", "no events", "too many events", "an entity twice"],
)
async def test_an_append_no_caller_may_ask_for(log: EventLog, appends: list[Append]) -> None:
    with pytest.raises(ValueError, match="append"):
        await log.append_all(appends)
    assert await log.position() == 0


async def test_an_event_that_is_too_large_is_refused(log: EventLog) -> None:
    with pytest.raises(EventTooLarge) as refused:
        await log.append(FRAUD, [moved("1"), moved("x" * EVENT_BYTES_MAX)], expected=0)
    assert refused.value.size_bytes > refused.value.limit_bytes == EVENT_BYTES_MAX
    assert await log.position() == 0


async def test_the_largest_event_is_accepted(log: EventLog) -> None:
    event = moved("x" * (EVENT_BYTES_MAX - 1_000))
    position = await log.append(FRAUD, [event], expected=0)
    assert (await history(log, FRAUD, until=position))[0].event == event


async def test_reading_after_a_position(log: EventLog) -> None:
    last = await log.append(FRAUD, [moved(str(n)) for n in range(5)], expected=0)
    assert await positions(log, FRAUD, after=3, until=last) == [4, 5]
    assert await positions(log, FRAUD, after=5) == []
    assert await positions(log, FRAUD, after=99) == []


async def test_reading_since_a_time_begins_with_what_was_appended_then(log: EventLog) -> None:
    before = datetime.now(UTC)
    await log.append(FRAUD, [moved("1"), moved("2")], expected=0)
    await log.append(SPAM, [registered("spam")], expected=0)
    between = datetime.now(UTC)
    last = await log.append(FRAUD, [moved("3"), moved("4")], expected=2)
    assert await positions(log, FRAUD, since=before, until=last) == [1, 2, 4, 5]
    assert await positions(log, FRAUD, since=between, until=last) == [4, 5]
    assert await positions(log, FRAUD, since=LONG_AGO, until=last) == [1, 2, 4, 5]
    assert await positions(log, FRAUD, since=datetime.now(UTC)) == []


async def test_a_time_is_the_same_in_every_zone(log: EventLog) -> None:
    await log.append(FRAUD, [moved("1")], expected=0)
    between = datetime.now(UTC).astimezone(timezone(timedelta(hours=-7)))
    last = await log.append(FRAUD, [moved("2")], expected=1)
    assert await positions(log, FRAUD, since=between, until=last) == [2]


async def test_reading_since_a_time_and_after_a_position_takes_the_later(log: EventLog) -> None:
    before = datetime.now(UTC)
    await log.append(FRAUD, [moved(str(n)) for n in range(3)], expected=0)
    between = datetime.now(UTC)
    last = await log.append(FRAUD, [moved(str(n)) for n in range(3)], expected=3)
    assert await positions(log, FRAUD, since=before, after=2, until=last) == [3, 4, 5, 6]
    assert await positions(log, FRAUD, since=between, after=2, until=last) == [4, 5, 6]
    assert await positions(log, FRAUD, since=between, after=4, until=last) == [5, 6]
    assert await positions(log, FRAUD, since=between, after=6) == []


async def test_reading_since_a_time_goes_on_over_many_batches(log: EventLog) -> None:
    last = await log.append(FRAUD, [moved("0")], expected=0)
    between = datetime.now(UTC)
    for _ in range(3):
        events = [moved(str(n)) for n in range(APPEND_EVENTS_MAX)]
        last = await log.append(FRAUD, events, expected=last)
    whole = list(range(2, last + 1))
    assert await positions(log, FRAUD, since=between, until=last) == whole
    late = await positions(log, FRAUD, since=between, after=2_500, until=last)
    assert late == list(range(2_501, last + 1))


async def test_reading_since_a_time_finds_nothing_of_others(log: EventLog) -> None:
    assert await positions(log, FRAUD, since=LONG_AGO) == []
    last = await log.append(SPAM, [registered("spam")], expected=0)
    assert await positions(log, SPAM, since=LONG_AGO, until=last) == [last]
    assert await positions(log, FRAUD, since=LONG_AGO) == []


async def test_a_subscription_starts_after_a_position_and_goes_on_live(log: EventLog) -> None:
    await log.append(FRAUD, [moved("1"), moved("2")], expected=0)
    async with aclosing(log.subscribe(after=1)) as events:
        assert (await anext(events)).position == 2
        waiting = asyncio.ensure_future(anext(events))
        await log.append(SPAM, [registered("spam")], expected=0)
        assert (await waiting).entity == SPAM


async def test_a_subscription_may_start_in_the_future(log: EventLog) -> None:
    async with aclosing(log.subscribe(after=2)) as events:
        waiting = asyncio.ensure_future(anext(events))
        await log.append(FRAUD, [moved("1"), moved("2"), moved("3")], expected=0)
        assert (await waiting).position == 3


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("evt.>", [1, 2, 3, 4]),
        ("evt.acme.>", [1, 2, 4]),
        ("evt.acme.model.>", [1, 2]),
        ("evt.*.model.fraud", [1, 3]),
        ("evt.acme.endpoint.chat", [4]),
    ],
)
async def test_a_pattern_selects_events(log: EventLog, pattern: str, expected: list[int]) -> None:
    for entity in (FRAUD, SPAM, OTHER_TENANT, CHAT):
        await log.append(entity, [moved("1")], expected=0)
    recorded = await first(log, len(expected), pattern)
    assert [r.position for r in recorded] == expected


async def test_a_batch_holds_what_is_there_up_to_its_bound(log: EventLog) -> None:
    await log.append(FRAUD, [moved(str(n)) for n in range(50)], expected=0)
    sizes: list[int] = []
    async with aclosing(log.subscribe_batches(batch_max=20)) as batches:
        async for batch in batches:
            sizes.append(len(batch))
            if sum(sizes) == 50:
                break
    assert all(1 <= size <= 20 for size in sizes)


async def test_every_subscriber_gets_every_event_once_in_order(log: EventLog) -> None:
    subscribers = [asyncio.ensure_future(first(log, 200)) for _ in range(3)]
    for n in range(200):
        await log.append(EntityId("acme", "model", f"m{n}"), [moved("1")], expected=0)
    for recorded in await asyncio.gather(*subscribers):
        assert [r.position for r in recorded] == list(range(1, 201))


async def test_restored_events_are_those_that_were_recorded(log: EventLog) -> None:
    original = await _sample()
    recorded = await first(original, 5)
    assert await log.restore(recorded[:2]) == 2
    assert await log.restore(recorded[2:]) == 5
    assert await first(log, 5) == recorded


async def test_restoring_out_of_order_writes_nothing(log: EventLog) -> None:
    recorded = await first(await _sample(), 5)
    for wrong in (recorded[1:], [recorded[0], recorded[2]], [recorded[1], recorded[0]]):
        with pytest.raises(ValueError, match="next"):
            await log.restore(wrong)
    assert await log.position() == 0


async def test_a_restored_command_is_not_repeated(log: EventLog) -> None:
    command = Metadata()
    original = MemoryLog()
    await original.append(FRAUD, [registered(), moved("1")], expected=0, metadata=command)
    await log.restore(await first(original, 2))
    again = await log.append(FRAUD, [registered(), moved("1")], expected=0, metadata=command)
    assert again == 2
    assert await log.position() == 2


async def test_an_export_restores_the_same_log(log: EventLog) -> None:
    await log.restore(await first(await _sample(), 5))
    file = io.BytesIO()
    assert await export_events(log, file) == 5
    file.seek(0)
    copy = MemoryLog()
    assert await import_events(file, copy) == 5
    assert await first(copy, 5) == await first(log, 5)


async def test_an_import_fills_an_empty_log_and_refuses_any_other(log: EventLog) -> None:
    file = io.BytesIO()
    await export_events(await _sample(), file)
    file.seek(0)
    assert await import_events(file, log) == 5
    file.seek(0)
    with pytest.raises(LogNotEmpty) as refused:
        await import_events(file, log)
    assert refused.value.position == 5


async def test_a_closed_log_takes_nothing(log: EventLog) -> None:
    await log.close()
    with pytest.raises(LogUnavailable):
        await log.append(FRAUD, [registered()], expected=0)


async def test_closing_finishes_what_is_under_way(log: EventLog) -> None:
    appends = [
        asyncio.ensure_future(
            log.append(EntityId("acme", "model", f"m{n}"), [registered()], expected=0)
        )
        for n in range(50)
    ]
    await asyncio.sleep(0)
    await log.close()
    assert sorted(await asyncio.gather(*appends)) == list(range(1, 51))


async def _sample() -> MemoryLog:
    """Five events of two tenants, with ids, times and actors of their own."""
    log = MemoryLog()
    events: list[tuple[EntityId, list[Event]]] = [
        (FRAUD, [registered(), moved("1.0.0")]),
        (OTHER_TENANT, [registered()]),
        (FRAUD, [retired("1.0.0"), moved("2.0.0")]),
    ]
    for index, (entity, facts) in enumerate(events):
        metadata = Metadata(
            command_id=UUID(int=index + 1),
            time=datetime(2026, 1, 1 + index, 12, tzinfo=UTC),
            actor=f"key:k{index}",
            causation_id="cause" if index else None,
        )
        known = [r async for r in log.read(entity)]
        expected = known[-1].position if known else 0
        await log.append(entity, facts, expected=expected, metadata=metadata)
    return log

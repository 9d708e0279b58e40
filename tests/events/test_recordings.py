"""A log and its traffic windows in one file, written from any log and restored into any."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta

import pytest

from events import UNCHECKED, EntityId, EventLog, MalformedEvent, Metadata, Recorded
from events.catalogue.models import ModelRegistered
from events.catalogue.traffic import VersionWindow, WindowObserved
from events.errors import LogNotEmpty
from events.files import export_events
from events.jetstream import JetStream
from events.memory import MemoryLog
from events.recordings import (
    Carried,
    decode_recording,
    export_recording,
    import_recording,
    is_traffic,
)

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
SCORE = EntityId("acme", "traffic", "score")


async def happened(log: EventLog, second: float, name: str) -> None:
    event = ModelRegistered(name=name)
    metadata = Metadata(time=NOON + timedelta(seconds=second))
    await log.append(EntityId("acme", "model", name), [event], expected=0, metadata=metadata)


async def seen(traffic: EventLog, second: int) -> None:
    start = NOON + timedelta(seconds=second)
    window = WindowObserved(
        gateway="g1", start=start, versions={"1": VersionWindow(requests=second)}
    )
    metadata = Metadata(time=start)
    await traffic.append(SCORE, [window], expected=UNCHECKED, metadata=metadata)


@pytest.fixture
async def recorded() -> bytes:
    """Events at 0, 2.5 and 9 seconds, windows of seconds 1, 2 and 3."""
    log, traffic = MemoryLog(), MemoryLog()
    for second, name in ((0.0, "a"), (2.5, "b"), (9.0, "c")):
        await happened(log, second, name)
    for second in (1, 2, 3):
        await seen(traffic, second)
    file = io.BytesIO()
    assert await export_recording(log, traffic, file) == Carried(events=3, windows=3)
    return file.getvalue()


def read(text: bytes) -> list[Recorded]:
    return list(decode_recording(text.splitlines(), name="a log"))


def test_a_window_stands_after_what_happened_before_it_was_over(recorded: bytes) -> None:
    kinds = ["window" if is_traffic(each) else each.entity.id for each in read(recorded)]
    assert kinds == ["a", "window", "b", "window", "window", "c"]
    assert [each.position for each in read(recorded)] == [1, 1, 2, 2, 3, 3]


async def test_it_is_restored_into_empty_streams_as_it_was(
    recorded: bytes, jetstream: JetStream
) -> None:
    log, traffic = jetstream.events, jetstream.traffic
    restored = await import_recording(io.BytesIO(recorded), log, traffic)
    assert restored == Carried(events=3, windows=3)
    again = io.BytesIO()
    await export_recording(log, traffic, again)
    assert again.getvalue() == recorded


async def test_neither_of_the_two_may_hold_anything(recorded: bytes) -> None:
    used = MemoryLog()
    await seen(used, 1)
    for log, traffic in ((used, MemoryLog()), (MemoryLog(), used)):
        with pytest.raises(LogNotEmpty):
            await import_recording(io.BytesIO(recorded), log, traffic)
    assert await used.position() == 1


async def test_a_window_that_is_there_twice_is_restored_once(recorded: bytes) -> None:
    lines = recorded.splitlines(keepends=True)
    twice = lines[1].replace(b'"position":1', b'"position":9')
    traffic = MemoryLog()
    file = io.BytesIO(recorded + twice)
    assert await import_recording(file, MemoryLog(), traffic) == Carried(events=3, windows=3)
    assert await traffic.position() == 3


async def test_windows_whose_beginning_is_forgotten_are_counted_from_one_again(
    recorded: bytes,
) -> None:
    lines = recorded.splitlines(keepends=True)
    kept = b"".join(line for line in lines if b'"position":1}' not in line or b"model" in line)
    assert [each.position for each in read(kept) if is_traffic(each)] == [2, 3]
    traffic = MemoryLog()
    await import_recording(io.BytesIO(kept), MemoryLog(), traffic)
    assert [each.position async for each in traffic.read(SCORE)] == [1, 2]


async def test_an_export_of_events_alone_is_a_recording_too() -> None:
    log = MemoryLog()
    await happened(log, 0, "a")
    file = io.BytesIO()
    await export_events(log, file)
    assert [each.entity.id for each in read(file.getvalue())] == ["a"]


async def test_nothing_is_exported_of_empty_streams(jetstream: JetStream) -> None:
    file = io.BytesIO()
    assert await export_recording(jetstream.events, jetstream.traffic, file) == Carried()
    assert file.getvalue() == b""


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda lines: [*lines, b"{}"], "specversion"),
        (lambda lines: lines[1:], "says position 2, stands at 1"),
        (lambda lines: [*lines[:4], lines[1], *lines[4:]], "window 1 follows 2"),
        (lambda lines: [b"\x00\xff", *lines], ""),
    ],
    ids=["no event", "an event missing", "windows out of order", "no text"],
)
async def test_a_line_that_cannot_be_is_named_and_nothing_is_restored(
    recorded: bytes, damage, reason: str
) -> None:
    text = b"\n".join(damage(recorded.splitlines()))
    log, traffic = MemoryLog(), MemoryLog()
    with pytest.raises(MalformedEvent, match=r"line \d+ of") as refused:
        await import_recording(io.BytesIO(text), log, traffic)
    assert reason in refused.value.reason
    assert await log.position() == await traffic.position() == 0


async def test_a_stream_begins_where_its_oldest_event_is(jetstream: JetStream) -> None:
    assert await jetstream.traffic.begin() == 0
    for second in (1, 2):
        await seen(jetstream.traffic, second)
    assert await jetstream.traffic.begin() == 0
    await jetstream.calls.ask("STREAM.PURGE.TRAFFIC", {"seq": 2})
    assert await jetstream.traffic.begin() == 1
    await jetstream.calls.ask("STREAM.PURGE.TRAFFIC", {})
    assert await jetstream.traffic.begin() == await jetstream.traffic.position() == 2
    file = io.BytesIO()
    assert await export_recording(jetstream.events, jetstream.traffic, file) == Carried()

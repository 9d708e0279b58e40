"""A log and its traffic in one file: what happened, on what evidence. One CloudEvent a line.

Events and windows have positions of their own, each in order. Between them they stand in the order
of time: a window after what happened before its second was over. Events alone are what
`events.files` exports, so every export is a recording too.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import IO
from uuid import UUID

import msgspec

from events import codec
from events.catalogue.traffic import WindowObserved
from events.errors import LogNotEmpty, LogUnavailable, MalformedEvent
from events.event import Recorded
from events.files import IMPORT_BATCH_EVENTS
from events.log import ALL_EVENTS, ALL_TRAFFIC, EventLog


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """How much was exported or imported."""

    events: int = 0
    windows: int = 0

    @property
    def lines(self) -> int:
        return self.events + self.windows


def _ignore(lines: int) -> None:
    """Nobody wants to know how far it is."""


def is_traffic(recorded: Recorded) -> bool:
    """Whether it is a window."""
    return isinstance(recorded.event, WindowObserved)


def told_at(recorded: Recorded) -> datetime:
    """When it was there to be known: events at once, windows when they are over."""
    event = recorded.event
    if isinstance(event, WindowObserved):
        return event.start + timedelta(seconds=event.seconds)
    return recorded.time


def decode_recording(lines: Iterable[bytes], *, name: str) -> Iterator[Recorded]:
    """Events and windows of a file, as they stand there.

    Events stand at positions 1, 2, 3; windows at growing ones. Raises MalformedEvent with the
    line's number as its position.
    """
    events = windows = 0
    for number, line in enumerate(lines, start=1):
        where = f"line {number} of {name}"
        try:
            recorded = codec.decode_line(line, position=number)
        except MalformedEvent as error:
            raise MalformedEvent(number, where, error.reason) from error
        position = recorded.position
        if is_traffic(recorded):
            if position <= windows:
                raise MalformedEvent(number, where, f"window {position} follows {windows}")
            windows = position
        else:
            events += 1
            if position != events:
                raise MalformedEvent(number, where, f"says position {position}, stands at {events}")
        yield recorded


async def export_recording(
    log: EventLog,
    traffic: EventLog,
    file: IO[bytes],
    *,
    progress: Callable[[int], None] = _ignore,
) -> Carried:
    """Write all events and windows there are at the start. `progress` hears the lines written.

    Windows older than the traffic stream keeps are not there, nor are reports of tokens, which mean
    nothing after a minute. Raises as `subscribe_batches` does.
    """
    events = windows = 0
    async with (
        aclosing(_up_to_now(log, ALL_EVENTS)) as first,
        aclosing(_up_to_now(traffic, ALL_TRAFFIC)) as second,
    ):
        async for recorded in _merged(first, _windows(second)):
            file.write(codec.encode_recorded(recorded) + b"\n")
            if is_traffic(recorded):
                windows += 1
            else:
                events += 1
            progress(events + windows)
    return Carried(events=events, windows=windows)


async def import_recording(
    file: IO[bytes],
    log: EventLog,
    traffic: EventLog,
    *,
    progress: Callable[[int], None] = _ignore,
) -> Carried:
    """Restore a recording into empty logs. Windows are counted from 1 again, and one that is there
    twice is restored once; all else is as it was.

    The whole file is checked before anything is written. Raises MalformedEvent with the line's
    number as its position, LogNotEmpty, LogUnavailable, AppendOutcomeUnknown.
    """
    name = getattr(file, "name", "the recording")
    for empty in (log, traffic):
        if (last := await empty.position()) > 0:
            raise LogNotEmpty(last)
    start = file.tell()
    for _ in decode_recording(file, name=name):
        pass
    file.seek(start)
    events, windows = _Restoring(log), _Restoring(traffic)
    seen: set[UUID] = set()
    for recorded in decode_recording(file, name=name):
        if not is_traffic(recorded):
            await events.add(recorded)
        elif recorded.id not in seen:
            seen.add(recorded.id)
            await windows.add(recorded)
        progress(events.count + windows.count)
    await events.flush()
    await windows.flush()
    return Carried(events=events.count, windows=windows.count)


class _Restoring:
    """One stream of an import, written in batches."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._batch: list[Recorded] = []
        self.count = 0

    async def add(self, recorded: Recorded) -> None:
        self.count += 1
        self._batch.append(msgspec.structs.replace(recorded, position=self.count))
        if len(self._batch) == IMPORT_BATCH_EVENTS:
            await self.flush()

    async def flush(self) -> None:
        if not self._batch:
            return
        last = await self._log.restore(self._batch)
        if last != self.count:
            raise LogUnavailable(f"position {self.count} was restored at {last}")
        self._batch = []


async def _up_to_now(log: EventLog, pattern: str) -> AsyncGenerator[Recorded, None]:
    after, until = await log.begin(), await log.position()
    if after >= until:
        return
    async with aclosing(log.subscribe_batches(pattern, after=after)) as batches:
        async for batch in batches:
            for recorded in batch:
                if recorded.position <= until:
                    yield recorded
            if batch[-1].position >= until:
                return


async def _windows(
    traffic: AsyncGenerator[Recorded, None],
) -> AsyncGenerator[Recorded, None]:
    async for recorded in traffic:
        if is_traffic(recorded):
            yield recorded


async def _merged(
    events: AsyncGenerator[Recorded, None], windows: AsyncGenerator[Recorded, None]
) -> AsyncGenerator[Recorded, None]:
    """Both in their own order, and by time between them; events first where it is the same."""
    event, window = await anext(events, None), await anext(windows, None)
    while event is not None or window is not None:
        if window is None or (event is not None and told_at(event) <= told_at(window)):
            assert event is not None, "one of them is there"
            yield event
            event = await anext(events, None)
        else:
            yield window
            window = await anext(windows, None)

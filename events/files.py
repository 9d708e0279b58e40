"""The log in a file: one CloudEvent a line, in order. For replays, recordings and small setups.

Guarantees: an append that returned is on disk. A line whose append goes on in the next line begins
with a space, which JSON does not see: after a crash an append that is not whole is cut off, and
with it a torn last line. One process at a time, which a lock on the file sees to. The event loop
stands still while the disk writes.

`export_events` and `import_events` carry a log over to any other in the same format.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import IO, Final

from events import codec
from events.errors import LogNotEmpty, LogUnavailable, MalformedEvent
from events.event import Position, Recorded
from events.log import ALL_EVENTS, EventLog
from events.memory import MemoryLog

IMPORT_BATCH_EVENTS: Final = 500
"""Restored at once; a thousand would fit an atomic batch, and are no faster."""
_CONTINUES: Final = b" "


class FileLog(MemoryLog):
    """Everything is also in memory; the file is read once, when it is opened."""

    def __init__(self, path: Path) -> None:
        """Creates the file if there is none. Raises MalformedEvent with the line's number as its
        position, LogUnavailable when another process has it."""
        super().__init__()
        self._path = path
        self._released = False
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            self._lock()
            self._load()
            _sync_directory(path.parent)
        except BaseException:
            os.close(self._file)
            raise

    async def close(self) -> None:
        """Subscriptions end with LogUnavailable; what was appended can still be read."""
        await super().close()
        if not self._released:
            self._released = True
            os.close(self._file)

    def _persist(self, recorded: Sequence[Recorded]) -> None:
        lines = [codec.encode_recorded(event) for event in recorded]
        text = b"".join(_CONTINUES + line + b"\n" for line in lines[:-1]) + lines[-1] + b"\n"
        size = os.fstat(self._file).st_size
        try:
            _write(self._file, text)
            os.fsync(self._file)
        except OSError as error:
            self._closed = True  # after a failed fsync nobody knows what a next one would keep
            os.ftruncate(self._file, size)
            raise LogUnavailable(f"{self._path} is not written to any more: {error}") from error

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise LogUnavailable(f"{self._path} is in use: {error}") from error

    def _load(self) -> None:
        text = self._path.read_bytes()
        whole = _whole(text)
        for recorded in decode_lines(whole.splitlines(), name=str(self._path)):
            self._show(recorded)
        if not whole.endswith(b"\n") and whole:
            _write(self._file, b"\n")
        elif len(whole) < len(text):
            os.ftruncate(self._file, len(whole))
        os.fsync(self._file)


def _whole(text: bytes) -> bytes:
    """The text up to the end of the last append that is whole."""
    start = text.rfind(b"\n") + 1
    if start < len(text) and not text.startswith(_CONTINUES, start) and _is_event(text[start:]):
        return text
    end = start
    while end > 0:
        start = text.rfind(b"\n", 0, end - 1) + 1
        if not text.startswith(_CONTINUES, start):
            break
        end = start
    return text[:end]


def _is_event(line: bytes) -> bool:
    try:
        codec.decode_line(line, position=1)
    except MalformedEvent:
        return False
    return True


def _write(file: int, text: bytes) -> None:
    while text:
        text = text[os.write(file, text) :]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@asynccontextmanager
async def open_file_log(path: str | Path) -> AsyncIterator[FileLog]:
    """The log in a file, closed at the end. Raises as `FileLog` does."""
    log = FileLog(Path(path))
    try:
        yield log
    finally:
        await log.close()


def decode_lines(lines: Iterator[bytes] | Sequence[bytes], *, name: str) -> Iterator[Recorded]:
    """The events of a file, one a line; the event in line n stands at position n.

    Raises MalformedEvent with the line's number as its position.
    """
    for number, line in enumerate(lines, start=1):
        try:
            recorded = codec.decode_line(line, position=number)
        except MalformedEvent as error:
            raise MalformedEvent(number, f"line {number} of {name}", error.reason) from error
        if recorded.position != number:
            raise MalformedEvent(
                number, f"line {number} of {name}", f"says position {recorded.position}"
            )
        yield recorded


def _ignore(position: Position) -> None:
    """Nobody wants to know how far it is."""


async def export_events(
    log: EventLog, file: IO[bytes], *, progress: Callable[[Position], None] = _ignore
) -> Position:
    """Write all events there are at the start, one CloudEvent a line with its position; the last
    position. `progress` hears how far it is. Raises as `subscribe_batches` does."""
    until = await log.position()
    if until == 0:
        return 0
    async with aclosing(log.subscribe_batches(ALL_EVENTS)) as batches:
        async for batch in batches:
            lines = [codec.encode_recorded(event) for event in batch if event.position <= until]
            file.write(b"".join(line + b"\n" for line in lines))
            progress(batch[-1].position)
            if batch[-1].position >= until:
                break
    return until


async def import_events(
    file: IO[bytes], log: EventLog, *, progress: Callable[[Position], None] = _ignore
) -> Position:
    """Restore an export into an empty log: ids, times, actors and positions; the last position.

    The whole file is checked before anything is written. Raises MalformedEvent with the line's
    number as its position, LogNotEmpty, LogUnavailable, AppendOutcomeUnknown.
    """
    last = await log.position()
    if last > 0:
        raise LogNotEmpty(last)
    name = getattr(file, "name", "the export")
    start = file.tell()
    for _ in decode_lines(file, name=name):
        pass
    file.seek(start)
    batch: list[Recorded] = []
    for recorded in decode_lines(file, name=name):
        batch.append(recorded)
        if len(batch) == IMPORT_BATCH_EVENTS:
            last = await _restore(log, batch)
            progress(last)
            batch = []
    if batch:
        last = await _restore(log, batch)
        progress(last)
    return last


async def _restore(log: EventLog, batch: Sequence[Recorded]) -> Position:
    last = await log.restore(batch)
    if last != batch[-1].position:
        raise LogUnavailable(f"position {batch[-1].position} was restored at {last}")
    return last

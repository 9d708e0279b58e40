"""A log in a file loses nothing that was acknowledged and keeps nothing that was torn."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from events import EventLog, LogUnavailable, MalformedEvent, Metadata
from events.connecting import connect
from events.files import FileLog, export_events, import_events, open_file_log
from events.memory import MemoryLog
from tests.events.examples import FRAUD, SPAM, first, history, moved, registered


async def write(path: Path) -> bytes:
    """One event, then three that belong together; what the file holds."""
    async with open_file_log(path) as log:
        await log.append(FRAUD, [registered()], expected=0)
        await log.append(FRAUD, [moved("1"), moved("2"), moved("3")], expected=1)
    return path.read_bytes()  # noqa: ASYNC240


async def positions(path: Path) -> int:
    async with open_file_log(path) as log:
        return await log.position()


async def test_a_log_reopened_is_the_same_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    command = Metadata(actor="key:k1")
    async with connect(path.as_uri()) as log:
        await log.append(FRAUD, [registered(), moved("1")], expected=0, metadata=command)
        before = await history(log, FRAUD)
    async with connect(path.as_uri()) as log:
        assert await history(log, FRAUD) == before
        again = [registered(), moved("1")]
        assert await log.append(FRAUD, again, expected=0, metadata=command) == 2
        assert await log.append(SPAM, [registered("spam")], expected=0) == 3


async def test_every_crash_leaves_whole_appends(tmp_path: Path) -> None:
    whole = await write(tmp_path / "whole.jsonl")
    first_append = whole.index(b"\n") + 1
    path = tmp_path / "torn.jsonl"
    ends = [index for index, byte in enumerate(whole) if byte == ord("\n")]
    near_ends = {end + step for end in ends for step in (-2, -1, 0, 1, 2)}
    lengths = near_ends | set(range(0, len(whole), 61)) | {len(whole)}
    for length in sorted(lengths & set(range(len(whole) + 1))):
        path.write_bytes(whole[:length])
        kept = 4 if length >= len(whole) - 1 else 1 if length >= first_append - 1 else 0
        assert await positions(path) == kept, length
        assert path.read_bytes() == {0: b"", 1: whole[:first_append], 4: whole}[kept]


async def test_after_a_crash_appends_go_on_where_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes((await write(path))[:-3])
    async with open_file_log(path) as log:
        assert await log.append(FRAUD, [moved("9")], expected=1) == 2
    async with open_file_log(path) as log:
        assert [r.event for r in await first(log, 2)] == [registered(), moved("9")]


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"",
        b"{}",
        b'{"specversion":"0.3"}',
    ],
    ids=["not JSON", "empty", "no event", "another version"],
)
async def test_a_malformed_line_is_named_by_its_number(tmp_path: Path, line: bytes) -> None:
    path = tmp_path / "log.jsonl"
    lines = (await write(path)).splitlines()
    path.write_bytes(b"\n".join([*lines[:1], line, *lines[1:], b""]))
    with pytest.raises(MalformedEvent, match=r"line 2 of .*log\.jsonl") as malformed:
        FileLog(path)
    assert malformed.value.position == 2


async def test_a_line_out_of_place_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = (await write(path)).splitlines()
    path.write_bytes(b"\n".join([lines[0], lines[2], lines[1], lines[3], b""]))
    with pytest.raises(MalformedEvent, match="says position 3") as malformed:
        FileLog(path)
    assert malformed.value.position == 2


async def test_lines_without_positions_stand_where_they_stand(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    text = (await write(path)).decode()
    for n in range(1, 5):
        text = text.replace(f',"position":{n}', "")
    path.write_text(text)
    assert await positions(path) == 4


async def test_a_file_has_one_owner(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    async with open_file_log(path) as log:
        with pytest.raises(LogUnavailable, match="in use"):
            FileLog(path)
        await log.append(FRAUD, [registered()], expected=0)
    assert await positions(path) == 1


async def test_every_append_is_on_disk_before_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fsync = os.fsync

    def noted(file: int) -> None:
        synced.append(os.fstat(file).st_size)
        fsync(file)

    path = tmp_path / "log.jsonl"
    async with open_file_log(path) as log:
        monkeypatch.setattr(os, "fsync", noted)
        for n in range(3):
            await log.append(FRAUD, [moved(str(n)), moved(str(n))], expected=2 * n)
            assert synced[-1] == path.stat().st_size
    assert len(synced) == 3


async def test_a_full_disk_writes_nothing_and_ends_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    before = await write(path)
    async with open_file_log(path) as log:

        def full(file: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        for _ in range(2):
            with pytest.raises(LogUnavailable):
                await log.append(FRAUD, [moved("4")], expected=4)
        monkeypatch.undo()
        assert await log.position() == 4
    assert path.read_bytes() == before


async def exported(log: EventLog) -> bytes:
    file = io.BytesIO()
    await export_events(log, file)
    return file.getvalue()


async def test_an_export_of_nothing_is_empty() -> None:
    assert await exported(MemoryLog()) == b""
    assert await import_events(io.BytesIO(), MemoryLog()) == 0


async def test_an_export_is_a_log_file(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    await write(path)
    async with open_file_log(path) as log:
        (tmp_path / "export.jsonl").write_bytes(await exported(log))
        async with open_file_log(tmp_path / "export.jsonl") as copy:
            assert await first(copy, 4) == await first(log, 4)


async def test_a_malformed_export_restores_nothing(tmp_path: Path) -> None:
    lines = (await write(tmp_path / "log.jsonl")).splitlines()
    log = MemoryLog()
    with pytest.raises(MalformedEvent, match="line 4") as malformed:
        await import_events(io.BytesIO(b"\n".join([*lines[:3], b"torn"])), log)
    assert malformed.value.position == 4
    assert await log.position() == 0


async def test_import_and_export_tell_how_far_they_are(tmp_path: Path) -> None:
    log, file, heard = MemoryLog(), io.BytesIO(), list[int]()
    for n in range(0, 1_200, 100):
        await log.append(FRAUD, [moved("1")] * 100, expected=n)
    await export_events(log, file, progress=heard.append)
    assert (heard[-1], heard) == (1_200, sorted(heard))
    heard.clear()
    file.seek(0)
    await import_events(file, MemoryLog(), progress=heard.append)
    assert heard == [500, 1_000, 1_200]

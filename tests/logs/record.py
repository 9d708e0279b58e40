"""Writes the golden logs of this directory, and the rows and cache entries they lead to.

    python -m tests.logs.record

Recording again gives the same bytes. `old-event-versions.jsonl` is kept by hand: what once was
written can no longer be recorded, and must be readable for ever. What it leads to is written here.
Look at the difference before you commit it: a golden file that changes is a promise that changes.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec

from projections.tables import PROJECTIONS
from switchback.replaying import read_log, replay
from switchback.replaying.memory import TablesFold
from tests.logs.histories import HISTORIES
from tests.logs.traffic import TrafficRecorder

DIRECTORY: Final = Path(__file__).parent


async def record(name: str) -> bytes:
    """The log of a history, as its file holds it."""
    recorder = TrafficRecorder(name)
    await HISTORIES[name](recorder)
    return await recorder.lines()


def rows_of(log: Path) -> bytes:
    """The rows a log leads to, folded in memory, as their file holds them."""
    return _document(replay(read_log(log)).tables)


def cache_of(log: Path) -> bytes:
    """The cache entries a log leads to, folded in memory, as their file holds them.

    Redis key -> position and value; the state key of a projection has the position alone.
    """
    fold = TablesFold()
    position = 0
    for recorded in read_log(log):
        fold.apply(recorded)
        position = recorded.position
    entries: dict[str, Any] = {}
    for projection in PROJECTIONS:
        if projection.cached is not None:
            prefix = f"sb:{projection.name}:{projection.version}"
            entries[f"{prefix}:state"] = {"position": position}
            for row in fold.rows(projection, projection.cached.table):
                tenant, id = projection.cached.table.key_of(row)
                shown = msgspec.convert(row, projection.cached.shows, from_attributes=True)
                entries[f"{prefix}:{tenant}:{id}"] = {"position": row.position, "value": shown}
    return _document(entries)


def rows_file(log: Path) -> Path:
    return log.with_suffix(".rows.json")


def cache_file(log: Path) -> Path:
    return log.with_suffix(".cache.json")


def _document(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=1) + b"\n"


async def _main() -> None:
    for name in HISTORIES:
        (DIRECTORY / f"{name}.jsonl").write_bytes(await record(name))
    for log in sorted(DIRECTORY.glob("*.jsonl")):
        rows_file(log).write_bytes(rows_of(log))
        cache_file(log).write_bytes(cache_of(log))


if __name__ == "__main__":
    asyncio.run(_main())

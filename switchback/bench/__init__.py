"""`switchback bench`: what the system does on this machine, beside what its servers do without us.

    report = await run(["commands", "routing"], directory=Path(".switchback"), sizes=QUICK)
    Console().print(table(report))

Each line that needs servers runs on fresh ones with fsync on every acknowledged append, under a
directory that must lie on a real disk. Figures are the median of several rounds; rounds of the
ceiling lie between ours.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, TypeAlias

from switchback.bench import (
    commands,
    detection,
    generation,
    inference,
    judgement,
    language,
    replays,
    routing,
    scheduling,
    soak,
    switches,
    upstreams,
    visible,
)
from switchback.bench.figures import Goal, Machine, Report, Row
from switchback.bench.report import table
from switchback.bench.sizes import FULL, LINE_SECONDS_MAX, QUICK, Sizes
from switchback.bench.stage import BenchFailed, Clients, Stage, open_clients, open_stage

__all__ = [
    "FULL",
    "LINES",
    "QUICK",
    "BenchFailed",
    "Goal",
    "Machine",
    "Report",
    "Row",
    "Sizes",
    "UnknownLine",
    "run",
    "table",
]

Line: TypeAlias = Callable[[Path, Sizes], Awaitable[Sequence[Row]]]
"""(directory for the servers' data, sizes) -> figures."""


def _served(measure: Callable[[Stage, Sizes], Awaitable[Sequence[Row]]]) -> Line:
    """On servers of its own."""

    async def line(directory: Path, sizes: Sizes) -> Sequence[Row]:
        async with open_stage(directory) as stage:
            return await measure(stage, sizes)

    return line


def _alone(measure: Callable[[Clients, Sizes], Awaitable[Sequence[Row]]]) -> Line:
    """Without any server."""

    async def line(_: Path, sizes: Sizes) -> Sequence[Row]:
        async with open_clients() as clients:
            return await measure(clients, sizes)

    return line


LINES: Final[Mapping[str, Line]] = MappingProxyType(
    {
        commands.NAME: _served(commands.measure),
        replays.MEMORY: _served(replays.measure_memory),
        replays.POSTGRES: _served(replays.measure_postgres),
        visible.NAME: _served(visible.measure),
        routing.NAME: _alone(routing.measure),
        switches.NAME: _served(switches.measure),
        inference.NAME: _served(inference.measure),
        upstreams.NAME: _served(upstreams.measure),
        scheduling.NAME: _alone(scheduling.measure),
        generation.NAME: _alone(generation.measure),
        language.NAME: _served(language.measure),
        judgement.NAME: _alone(judgement.measure),
        detection.NAME: _served(detection.measure),
        soak.NAME: _served(soak.measure),
    }
)
"""Name -> what measures it."""


class UnknownLine(ValueError):
    """A name that is none of LINES."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no line {name!r}; there are {', '.join(LINES)}")
        self.name = name


async def run(
    names: Sequence[str] = (),
    *,
    directory: Path,
    sizes: Sizes = FULL,
    begun: Callable[[str], None] = lambda _: None,
) -> Report:
    """Measure these lines, or all, one after another; `begun` hears each line's name.

    Raises UnknownLine, BenchFailed; whatever else fails, fails the run.
    """
    for name in names:
        if name not in LINES:
            raise UnknownLine(name)
    machine = Machine(processors=os.cpu_count() or 1, load_before=os.getloadavg()[0])
    rows: list[Row] = []
    for name in names or LINES:
        begun(name)
        rows += await _measured(name, directory, sizes)
    return Report(machine=machine, rows=tuple(rows))


async def _measured(name: str, directory: Path, sizes: Sizes) -> Sequence[Row]:
    try:
        async with asyncio.timeout(LINE_SECONDS_MAX):
            return await LINES[name](directory, sizes)
    except TimeoutError as error:
        raise BenchFailed(f"line {name} took more than {LINE_SECONDS_MAX:.0f} s") from error

"""Line `soak`: 1,000 swaps under 200 requests a second. Nobody notices, and nothing piles up."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import psutil

from switchback.bench.endpoints import VERSIONS, infer_request, make_endpoint, swap_request
from switchback.bench.figures import Goal, Row, failures, percentile, row
from switchback.bench.http import Answer, Connection, Target, connected
from switchback.bench.load import Seen, paced
from switchback.bench.sizes import LINE_SECONDS_MAX, Sizes
from switchback.bench.stage import Stage

NAME: Final = "soak"
GROWTH_PERCENT: Final = Goal("at most", 5.0)
CONNECTIONS: Final = 16
SEGMENTS: Final = 10
"""Parts of the run whose medians show how steady it was."""
MIB: Final = 1024 * 1024


class Soaked(msgspec.Struct, frozen=True, kw_only=True):
    requests: Seen
    swaps_s: list[float]
    memory_bytes: tuple[int, int]
    """Of the process under load: after the first swaps, and at the end."""


async def measure(stage: Stage, sizes: Sizes) -> Sequence[Row]:
    system = await stage.start()
    soaked = await stage.call(
        soak, system.target, system.pid, sizes.swaps, sizes.swaps_before, sizes.rate_per_s
    )
    before, after = soaked.memory_bytes
    p99_ms = percentile(soaked.requests.latencies_s, 99) * 1_000
    return (
        failures(NAME, f"requests failed during {sizes.swaps} swaps", [soaked.requests.failed]),
        row(NAME, "memory growth", "%", [(after / before - 1) * 100], goal=GROWTH_PERCENT),
        row(NAME, "swap, by tenths of the run", "ms", _segments_ms(soaked.swaps_s)),
        row(NAME, "requests meanwhile, p99", "ms", [p99_ms]),
    )


async def soak(target: Target, pid: int, swaps: int, before: int, rate_per_s: int) -> Soaked:
    """Swap there and back again while requests keep coming."""
    request, enough = infer_request(target), asyncio.Event()

    async def work(connection: Connection, _: int) -> Answer:
        return await connection.ask(request)

    async with asyncio.timeout(LINE_SECONDS_MAX), connected(target, CONNECTIONS + 1) as all_:
        control, *connections = all_
        await make_endpoint(target, control)
        numbers = _until(enough)
        load = asyncio.create_task(paced(connections, numbers, rate_per_s, work))
        try:
            first = await _swaps(target, control, before)
            memory_before = _memory_bytes(pid)
            rest = await _swaps(target, control, swaps - before)
            memory_after = _memory_bytes(pid)
        finally:
            enough.set()
        return Soaked(
            requests=await load,
            swaps_s=first + rest,
            memory_bytes=(memory_before, memory_after),
        )


def _until(enough: asyncio.Event) -> Iterator[int]:
    return itertools.takewhile(lambda _: not enough.is_set(), itertools.count())


async def _swaps(target: Target, control: Connection, count: int) -> list[float]:
    taken_s = []
    first, second = VERSIONS
    for _, version in zip(range(count), itertools.cycle((second, first)), strict=False):
        began = time.perf_counter()
        await control.ask(swap_request(target, version))
        taken_s.append(time.perf_counter() - began)
    return taken_s


def _memory_bytes(pid: int) -> int:
    return int(psutil.Process(pid).memory_info().rss)


def _segments_ms(seconds: Sequence[float]) -> list[float]:
    length = max(1, len(seconds) // SEGMENTS)
    parts = [seconds[start : start + length] for start in range(0, len(seconds), length)]
    return [percentile(part, 50) * 1_000 for part in parts]

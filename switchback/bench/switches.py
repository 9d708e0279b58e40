"""Line `switches`: after a swap or rollback was acknowledged, when does every gateway obey?

Right after the acknowledgement each gateway is asked on a connection of its own until it answers
from the new version; what counts is the slowest. So an answer's own way there and back is in it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from events.jetstream.ceilings import publishes_delivered
from switchback.bench.commands import EVENT_BYTES
from switchback.bench.endpoints import (
    VERSIONS,
    infer_request,
    make_endpoint,
    rollback_request,
    swap_request,
)
from switchback.bench.figures import Goal, Row, percentile, row
from switchback.bench.http import Connection, Target, connected
from switchback.bench.sizes import Sizes
from switchback.bench.stage import Stage

NAME: Final = "switches"
SEEN_P99_MS: Final = Goal("at most", 50)
ROLLBACK_P99_MS: Final = Goal("at most", 1_000)
SEEN_SECONDS_MAX: Final = 10.0
RAW_RATE_PER_S: Final = 100


class Switch(msgspec.Struct, frozen=True):
    """One swap or rollback."""

    answered_s: float
    """From the request to its acknowledgement."""
    seen_s: float
    """From the acknowledgement until every gateway has answered from the new version."""


class Switches(msgspec.Struct, frozen=True):
    swaps: list[Switch]
    rollbacks: list[Switch]


async def measure(stage: Stage, sizes: Sizes) -> Sequence[Row]:
    first = await stage.start(name="g1")
    others = [await stage.start("gateway", name=f"g{n}") for n in range(2, sizes.gateways + 1)]
    targets = [first.target, *(system.target for system in others)]
    await stage.call(prepare, first.target)
    await stage.call(switch, targets, max(1, sizes.switches // 10))
    rounds: list[Switches] = []
    raw: list[float] = []
    for _ in range(sizes.rounds):
        delivered = await stage.call(deliver, stage.addresses.nats, sizes.switches, len(targets))
        raw.append(percentile(delivered, 99) * 1_000)
        rounds.append(await stage.call(switch, targets, sizes.switches))
    every = f"seen by {len(targets)} gateways"
    swaps = [_p99_ms([s.seen_s for s in one.swaps]) for one in rounds]
    rollbacks = [_p99_ms([s.seen_s for s in one.rollbacks]) for one in rounds]
    whole = [_p99_ms([s.answered_s + s.seen_s for s in one.rollbacks]) for one in rounds]
    return (
        row(NAME, f"swap {every} after its answer, p99", "ms", swaps, goal=SEEN_P99_MS),
        row(NAME, f"rollback {every} after its answer, p99", "ms", rollbacks, goal=SEEN_P99_MS),
        row(
            NAME,
            f"rollback asked for until {every}, p99",
            "ms",
            whole,
            ceilings=raw,
            goal=ROLLBACK_P99_MS,
        ),
    )


def _p99_ms(seconds: Sequence[float]) -> float:
    return percentile(seconds, 99) * 1_000


async def prepare(target: Target) -> None:
    async with connected(target, 1) as [connection]:
        await make_endpoint(target, connection)


async def deliver(url: str, publishes: int, subscribers: int) -> list[float]:
    """Raw: a message on a stream, to as many subscribers."""

    async def nothing(_: bytes) -> None:
        pass

    return await publishes_delivered(
        url,
        publishes,
        bytes(EVENT_BYTES),
        subscribers=subscribers,
        rate_per_s=RAW_RATE_PER_S,
        deliver=nothing,
    )


async def switch(targets: Sequence[Target], count: int) -> Switches:
    """Swap to the second version and roll back to the first, `count` times."""
    first, second = VERSIONS
    done = Switches([], [])
    async with AsyncExitStack() as stack:
        [control] = await stack.enter_async_context(connected(targets[0], 1))
        gateways = []
        for target in targets:
            [connection] = await stack.enter_async_context(connected(target, 1))
            gateways.append((connection, infer_request(target)))
        for _ in range(count):
            swap = swap_request(targets[0], second)
            done.swaps.append(await _one(control, swap, gateways, second))
            rollback = rollback_request(targets[0])
            done.rollbacks.append(await _one(control, rollback, gateways, first))
    return done


async def _one(
    control: Connection, request: bytes, gateways: Sequence[tuple[Connection, bytes]], to: str
) -> Switch:
    began = time.perf_counter()
    await control.ask(request)
    answered = time.perf_counter()
    async with asyncio.timeout(SEEN_SECONDS_MAX):
        await asyncio.gather(*(_until(connection, infer, to) for connection, infer in gateways))
    return Switch(answered - began, time.perf_counter() - answered)


async def _until(connection: Connection, infer: bytes, version: str) -> None:
    while True:
        answer = await connection.ask(infer)
        if answer.header("switchback-version") == version:
            return

"""Line `commands`: registrations over HTTP, 100 connections, each waiting for its answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from events.jetstream.ceilings import batched_publishes
from switchback.bench.figures import Goal, Row, failures, percentile, row
from switchback.bench.http import Answer, Connection, Target, connected
from switchback.bench.load import Seen, flood
from switchback.bench.sizes import Sizes
from switchback.bench.stage import Stage

NAME: Final = "commands"
RATE: Final = Goal("at least", 1_000)
P99_MS: Final = Goal("at most", 100)
EVENT_BYTES: Final = 420
"""What a registration takes on the log."""


async def measure(stage: Stage, sizes: Sizes) -> Sequence[Row]:
    """Rounds of ours between rounds of raw publishes on the same server."""
    system = await stage.start()
    await stage.call(register, system.target, "warm", sizes.commands // 5, sizes.connections)
    seen: list[Seen] = []
    ceilings: list[float] = []
    for number in range(sizes.rounds):
        ceilings.append(
            await stage.call(
                batched_publishes, stage.addresses.nats, sizes.raw_publishes, bytes(EVENT_BYTES)
            )
        )
        seen.append(
            await stage.call(
                register, system.target, f"r{number}", sizes.commands, sizes.connections
            )
        )
    p99_ms = [percentile(one.latencies_s, 99) * 1_000 for one in seen]
    return (
        row(
            NAME, "commands over HTTP", "/s", [s.per_s for s in seen], ceilings=ceilings, goal=RATE
        ),
        row(NAME, "commands over HTTP, p99", "ms", p99_ms, goal=P99_MS),
        failures(NAME, "commands failed", [one.failed for one in seen]),
    )


async def register(target: Target, prefix: str, count: int, connections: int) -> Seen:
    """Register `count` models."""
    requests = [
        target.request("POST", "/api/v1/models", {"name": f"{prefix}-{number}"})
        for number in range(count)
    ]

    async def work(connection: Connection, number: int) -> Answer:
        return await connection.ask(requests[number])

    async with connected(target, connections) as open_connections:
        return await flood(open_connections, count, work)

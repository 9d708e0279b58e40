"""Line `visible`: from sending a command to reading its effect out of the tables, at 200/s."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from events.jetstream.ceilings import publishes_delivered
from projections.ceilings import row_inserter
from switchback.bench.commands import EVENT_BYTES
from switchback.bench.figures import Goal, Row, failures, percentile, row
from switchback.bench.http import Answer, Connection, Target, connected
from switchback.bench.load import Seen, paced
from switchback.bench.sizes import Sizes
from switchback.bench.stage import Stage
from switchback.servers import Addresses

NAME: Final = "visible"
P99_MS: Final = Goal("at most", 100)
CONNECTIONS: Final = 64


async def measure(stage: Stage, sizes: Sizes) -> Sequence[Row]:
    system = await stage.start()
    count, rate = sizes.visible_commands, sizes.rate_per_s
    await stage.call(write_and_read, system.target, "warm", count // 5, rate)
    seen: list[Seen] = []
    ceilings: list[float] = []
    for number in range(sizes.rounds):
        raw_s = await stage.call(publish_and_insert, stage.addresses, count, rate)
        ceilings.append(percentile(raw_s, 99) * 1_000)
        seen.append(await stage.call(write_and_read, system.target, f"r{number}", count, rate))
    p50_ms = [percentile(one.latencies_s, 50) * 1_000 for one in seen]
    p99_ms = [percentile(one.latencies_s, 99) * 1_000 for one in seen]
    return (
        row(NAME, "command to visible row, p50", "ms", p50_ms),
        row(NAME, "command to visible row, p99", "ms", p99_ms, ceilings=ceilings, goal=P99_MS),
        failures(NAME, "commands or reads failed", [one.failed for one in seen]),
    )


async def write_and_read(target: Target, prefix: str, count: int, rate_per_s: int) -> Seen:
    """Register a model, and read it at the position it was registered at."""

    async def work(connection: Connection, number: int) -> Answer:
        name = f"{prefix}-{number}"
        written = await connection.ask(target.request("POST", "/api/v1/models", {"name": name}))
        position = int(written.header("switchback-position"))
        path = f"/api/v1/models/{name}"
        return await connection.ask(target.request("GET", path, min_position=position))

    async with connected(target, CONNECTIONS) as connections:
        return await paced(connections, iter(range(count)), rate_per_s, work)


async def publish_and_insert(addresses: Addresses, count: int, rate_per_s: int) -> list[float]:
    """Raw: a message on a stream, to one subscriber, into one row."""
    async with row_inserter(addresses.postgres) as insert:
        return await publishes_delivered(
            addresses.nats,
            count,
            bytes(EVENT_BYTES),
            subscribers=1,
            rate_per_s=rate_per_s,
            deliver=insert,
        )

"""Line `inference`: what gateway and bus add to calling the version directly, at 200/s.

Seen from the client, so HTTP is in it. In one process the gateway calls its own node; over the bus
gateway and node are two processes with NATS between them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from events.jetstream.ceilings import requests_and_replies
from switchback.bench.bare import call_runtime, nothing_served
from switchback.bench.endpoints import INPUTS, infer_request, make_endpoint
from switchback.bench.figures import Goal, Row, failures, percentile, row
from switchback.bench.http import Answer, Connection, Target, connected
from switchback.bench.load import Seen, paced
from switchback.bench.sizes import Sizes
from switchback.bench.stage import Stage

NAME: Final = "inference"
P50_MS: Final = Goal("at most", 2.0)
CONNECTIONS: Final = 16


async def measure(stage: Stage, sizes: Sizes) -> Sequence[Row]:
    whole = await stage.start(name="whole")
    await stage.call(prepare, whole.target)
    remote = await stage.start("gateway", name="remote")
    together = _Way("in one process", whole.target)
    apart = _Way("over the bus", remote.target)
    for way in (together, apart):
        await stage.call(infer, way.target, sizes.inferences // 5, sizes.rate_per_s)
    for _ in range(sizes.rounds):
        http_ms = _p50_ms(await stage.call(bare_http, sizes.inferences, sizes.rate_per_s))
        replies = await stage.call(
            requests_and_replies, stage.addresses.nats, sizes.inferences, _payload()
        )
        direct_ms = _p50_ms(await stage.call(call_runtime, INPUTS["inputs"], sizes.inferences))
        together.floors_ms.append(http_ms)
        apart.floors_ms.append(http_ms + _p50_ms(replies))
        for way in (together, apart):
            way.add(
                await stage.call(infer, way.target, sizes.inferences, sizes.rate_per_s), direct_ms
            )
    failed = [*together.failed, *apart.failed]
    return (*together.rows(), *apart.rows(), failures(NAME, "inferences failed", failed))


class _Way:
    """The figures of one way to a version."""

    def __init__(self, what: str, target: Target) -> None:
        self.what = what
        self.target = target
        self.added_ms: list[float] = []
        self.p99_ms: list[float] = []
        self.floors_ms: list[float] = []
        self.failed: list[int] = []

    def add(self, seen: Seen, direct_ms: float) -> None:
        self.added_ms.append(_p50_ms(seen.latencies_s) - direct_ms)
        self.p99_ms.append(percentile(seen.latencies_s, 99) * 1_000 - direct_ms)
        self.failed.append(seen.failed)

    def rows(self) -> tuple[Row, ...]:
        what = f"added {self.what}"
        return (
            row(NAME, f"{what}, p50", "ms", self.added_ms, ceilings=self.floors_ms, goal=P50_MS),
            row(NAME, f"{what}, p99", "ms", self.p99_ms),
        )


def _p50_ms(seconds: Sequence[float]) -> float:
    return percentile(seconds, 50) * 1_000


def _payload() -> bytes:
    return msgspec.msgpack.encode(INPUTS)


async def prepare(target: Target) -> None:
    async with connected(target, 1) as [connection]:
        await make_endpoint(target, connection)


async def infer(target: Target, count: int, rate_per_s: int) -> Seen:
    request = infer_request(target)

    async def work(connection: Connection, _: int) -> Answer:
        return await connection.ask(request)

    async with connected(target, CONNECTIONS) as connections:
        return await paced(connections, iter(range(count)), rate_per_s, work)


async def bare_http(count: int, rate_per_s: int) -> list[float]:
    """Seconds of each request to a server that does nothing."""
    async with nothing_served() as target:
        return (await infer(target, count, rate_per_s)).latencies_s

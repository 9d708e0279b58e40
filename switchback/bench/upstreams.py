"""Line `upstreams`: what the gateway adds to a chat with an upstream, beside the upstream alone.

Through all of it: HTTP, `/v1/chat/completions`, routing, receipt, the upstream's client and back.
Mock upstream, gateway and clients are processes beside each other. What is added is seen at a
steady rate, how many chats a second there can be, as fast as they are answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from switchback.bench.chats import WAYS, Way, chat_request, flood_chats, paced_chats
from switchback.bench.figures import Goal, Row, failures, percentile, row
from switchback.bench.http import Target, connected
from switchback.bench.mocked import mock_upstream
from switchback.bench.sizes import Sizes
from switchback.bench.stage import Stage

NAME: Final = "upstreams"
ENDPOINT: Final = "chat"
P50_MS: Final = Goal("at most", 2.0)
PER_S: Final = Goal("at least", 1_000)
"""Over several connections: over one, a chat begins when the one before has ended."""


async def measure(stage: Stage, sizes: Sizes) -> Sequence[Row]:
    async with mock_upstream() as mock:
        system = await stage.start()
        await stage.call(make_endpoint, system.target, mock)
        lanes = [Lane(way, count, sizes) for way in WAYS for count in sizes.chat_connections]
        for lane in lanes:
            await lane.warm(stage, system.target)
        for _ in range(sizes.rounds):
            for lane in lanes:
                await lane.run(stage, system.target, mock)
    failed = [sum(counts) for counts in zip(*(lane.failed for lane in lanes), strict=True)]
    return (
        *(each for lane in lanes for each in lane.rows()),
        failures(NAME, "chats failed", failed),
    )


class Lane:
    """The figures of one way to chat, over so many connections."""

    def __init__(self, way: Way, connections: int, sizes: Sizes) -> None:
        self._way: Way = way
        self._connections = connections
        self._sizes = sizes
        self.failed: list[int] = []
        self.per_s: list[float] = []
        self.ceilings_per_s: list[float] = []
        self.added_ms: list[float] = []
        self.floors_ms: list[float] = []
        self.added_to_first_ms: list[float] = []

    async def warm(self, stage: Stage, gateway: Target) -> None:
        request = chat_request(gateway, ENDPOINT, self._way)
        count = max(1, self._sizes.chats // 5)
        await stage.call(flood_chats, gateway, request, self._connections, count)

    async def run(self, stage: Stage, gateway: Target, mock: Target) -> None:
        """A round: the mock alone, then through the gateway."""
        sizes, connections = self._sizes, self._connections
        figures = []
        for target in (mock, gateway):
            request = chat_request(target, ENDPOINT, self._way)
            steady = await stage.call(
                paced_chats, target, request, connections, sizes.paced_chats, sizes.rate_per_s
            )
            fast = await stage.call(flood_chats, target, request, connections, sizes.chats)
            figures.append((steady, fast))
        (bare, bare_fast), (ours, ours_fast) = figures
        floor_ms = p50_ms(bare.seen.latencies_s)
        self.floors_ms.append(floor_ms)
        self.added_ms.append(p50_ms(ours.seen.latencies_s) - floor_ms)
        self.added_to_first_ms.append(p50_ms(ours.firsts_s) - p50_ms(bare.firsts_s))
        self.per_s.append(ours_fast.seen.per_s)
        self.ceilings_per_s.append(bare_fast.seen.per_s)
        self.failed.append(ours.seen.failed + ours_fast.seen.failed)

    def rows(self) -> tuple[Row, ...]:
        what = f"{self._way}, connections: {self._connections}"
        goal = PER_S if self._connections > 1 else None
        first = row(NAME, f"{what}: added to first bytes, p50", "ms", self.added_to_first_ms)
        return (
            row(NAME, f"{what}: added, p50", "ms", self.added_ms, goal=P50_MS),
            *([first] if self._way == "streamed" else []),
            row(NAME, f"{what}: chats", "/s", self.per_s, ceilings=self.ceilings_per_s, goal=goal),
        )


def p50_ms(seconds: Sequence[float]) -> float:
    return percentile(seconds, 50) * 1_000


async def make_endpoint(target: Target, mock: Target) -> None:
    """An endpoint on the mock, loaded."""
    async with connected(target, 1) as [connection]:
        for method, path, body in (
            ("POST", "/api/v1/models", {"name": ENDPOINT}),
            ("POST", f"/api/v1/models/{ENDPOINT}/versions", _version("1.0.0", mock)),
            ("POST", f"/api/v1/models/{ENDPOINT}/versions", _version("2.0.0", mock)),
            ("PUT", f"/api/v1/endpoints/{ENDPOINT}", {"model": ENDPOINT, "version": "1.0.0"}),
            ("POST", f"/api/v1/endpoints/{ENDPOINT}/swap?wait=true", {"to": "2.0.0"}),
        ):
            await connection.ask(target.request(method, path, body))


def _version(version: str, mock: Target) -> dict[str, object]:
    config = {"url": f"http://{mock.host}:{mock.port}/v1", "model": "mock"}
    return {"version": version, "runtime": "upstream", "config": config}

"""Our gateway beside LiteLLM's proxy, our scheduler beside vLLM's: in one run on one machine.

Rounds of the mock alone, of ours and of the peer's take turns, with the same client; figures are
medians of rounds. What is added is seen over one connection, where nothing waits for anything else;
chats a second over many, as fast as they are answered. What schedulers cost is a processor's time
for one running request in one step; ours has priorities, cancellations and stop strings to look
after besides.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from rich.console import Console
from rich.table import Table

from switchback.bench.chats import WAYS, Way, chat_request, flood_chats
from switchback.bench.http import Target
from switchback.bench.mocked import mock_upstream
from switchback.bench.scheduling import RUNNING, cost_us
from switchback.bench.stage import Stage, open_stage
from switchback.bench.upstreams import CONNECTIONS, ENDPOINT, make_endpoint, p50_ms
from tests.bench.peers.litellm_proxy import litellm_proxy
from tests.bench.peers.vllm_scheduler import is_vllm_there, vllm_costs_us

ROUNDS: Final = 3
CHATS: Final = 200
"""In a round: the slower of the two takes seconds for them."""
TIMES: Final = 10
"""How many times the peer's throughput is to be reached, and its added latency undercut."""
STEPS: Final = 200
"""Timed, of each scheduler and number of running requests."""
DIRECTORY: Final = Path(".switchback")
_SAID: Final = {True: "yes", False: "no"}
_WHO: Final = ("mock", "ours", "peer")


class _Seen(NamedTuple):
    per_s: float
    p50_ms: float


class _Lane:
    """One way to chat over so many connections, through each of the three."""

    def __init__(self, way: Way, connections: int) -> None:
        self.way: Way = way
        self.connections = connections
        self.seen: dict[str, list[_Seen]] = {who: [] for who in _WHO}

    async def run(self, stage: Stage, targets: dict[str, Target], *, count: int) -> None:
        for who, target in targets.items():
            request = chat_request(target, ENDPOINT, self.way)
            chats = await stage.call(flood_chats, target, request, self.connections, count)
            if chats.seen.failed:
                raise SystemExit(f"{who}: {chats.seen.failed} chats failed: {chats.seen.reason}")
            self.seen[who].append(_Seen(chats.seen.per_s, p50_ms(chats.seen.latencies_s)))

    def per_s(self, who: str) -> float:
        return median(seen.per_s for seen in self.seen[who])

    def added_ms(self, who: str) -> float:
        pairs = zip(self.seen[who], self.seen["mock"], strict=True)
        return median(one.p50_ms - bare.p50_ms for one, bare in pairs)


class _Row(NamedTuple):
    figure: str
    ours: str
    peer: str
    times: float
    goal: float | None = TIMES

    @property
    def is_reached(self) -> bool:
        return self.goal is None or self.times >= self.goal


def _rows(lanes: list[_Lane]) -> Iterator[_Row]:
    for lane in lanes:
        what = f"{lane.way}, {lane.connections} connections"
        if lane.connections == 1:
            ours, peer = lane.added_ms("ours"), lane.added_ms("peer")
            yield _Row(
                f"LiteLLM, {what}: added, p50", f"{ours:.2f} ms", f"{peer:.2f} ms", peer / ours
            )
        else:
            ours, peer = lane.per_s("ours"), lane.per_s("peer")
            yield _Row(f"LiteLLM, {what}: chats", f"{ours:,.0f}/s", f"{peer:,.0f}/s", ours / peer)


def _table(rows: list[_Row]) -> Table:
    table = Table(title="Switchback beside its peers")
    for column in ("figure", "ours", "theirs", "times better", "goal", "reached"):
        table.add_column(column)
    for row in rows:
        goal = ("", "") if row.goal is None else (f"{row.goal:g}", _SAID[row.is_reached])
        table.add_row(row.figure, row.ours, row.peer, f"{row.times:.1f}", *goal)
    return table


async def measured() -> list[_Row]:
    lanes = [_Lane(way, count) for way in WAYS for count in CONNECTIONS]
    async with mock_upstream() as mock, litellm_proxy(mock) as peer, open_stage(DIRECTORY) as stage:
        ours = (await stage.start()).target
        await stage.call(make_endpoint, ours, mock)
        targets = {"mock": mock, "ours": ours, "peer": peer}
        for lane in lanes:
            await _Lane(lane.way, lane.connections).run(stage, targets, count=CHATS // 4)
        for _ in range(ROUNDS):
            for lane in lanes:
                await lane.run(stage, targets, count=CHATS)
    return list(_rows(lanes))


def _scheduling_rows() -> Iterator[_Row]:
    """None if vLLM is not installed, or cannot be."""
    for running, theirs_us in vllm_costs_us(STEPS, RUNNING).items():
        ours_us = median(cost_us(running, STEPS) for _ in range(ROUNDS))
        yield _Row(
            f"vLLM, a step for each of {running}",
            f"{ours_us:.2f} us",
            f"{theirs_us:.2f} us",
            theirs_us / ours_us,
            goal=None,
        )


def main() -> int:
    """0 if every goal was reached."""
    console = Console()
    rows = [*asyncio.run(measured()), *_scheduling_rows()]
    console.print(_table(rows))
    if not is_vllm_there():
        console.print("vLLM is not installed below .peers, so its scheduler is left out")
    return 0 if all(row.is_reached for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())

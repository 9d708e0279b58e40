"""Line `routing`: what a decision costs, with and without rules, and the receipt of it."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any, Final

import msgspec
import xxhash

from engine.routing import Decision, compile_policy, decide_route, receipt_for, sign
from events.catalogue.endpoints import Policy
from switchback.bench.figures import Goal, Row, row
from switchback.bench.sizes import Sizes
from switchback.bench.stage import Clients

NAME: Final = "routing"
MEDIAN_US: Final = Goal("at most", 2.0)
REPEATS: Final = 20
"""Timings of which a round is the median."""
_NOW_MS: Final = 1_800_000_000_000
_KEY: Final = "user-123456"
_SALT: Final = "acme/chat"
_SECRET: Final = b"a secret of this bench, 32 bytes"
_ATTRIBUTES: Final[Mapping[str, str]] = {"tier": "free"}
_CANARY: Final[dict[str, Any]] = {"split": {"1.0.0": 90, "2.0.0": 10}}
_RULES: Final[dict[str, Any]] = {
    **_CANARY,
    "shadow": [{"version": "3.0.0", "fraction": 0.5}],
    "rules": [
        {
            "name": "office hours",
            "when": {"days": ["mon"], "from": "09:00", "to": "17:00", "timezone": "Europe/Paris"},
            "split": {"2.0.0": 100},
        },
        {"name": "beta", "when": {"attributes": {"tier": "beta"}}, "split": {"2.0.0": 100}},
    ],
}


async def measure(clients: Clients, sizes: Sizes) -> Sequence[Row]:
    return await clients.call(decide, sizes.rounds, sizes.routing_calls)


async def decide(rounds: int, calls: int) -> Sequence[Row]:
    """Time decisions and receipts, the calling included."""
    canary, ruled = _decision(_CANARY), _decision(_RULES)
    signed = _signing(canary())
    hashed = f"{_SALT}:{_KEY}".encode()
    figures: dict[str, list[float]] = {"hash": [], "canary": [], "ruled": [], "signed": []}
    for _ in range(rounds):
        figures["hash"].append(_median_us(lambda: xxhash.xxh3_64_intdigest(hashed), calls))
        figures["canary"].append(_median_us(canary, calls))
        figures["ruled"].append(_median_us(ruled, calls))
        figures["signed"].append(_median_us(signed, calls))
    floor = figures["hash"]
    return (
        row(NAME, "decision, canary", "us", figures["canary"], ceilings=floor, goal=MEDIAN_US),
        row(NAME, "decision, two rules and shadow", "us", figures["ruled"], ceilings=floor),
        row(NAME, "receipt, made and signed", "us", figures["signed"]),
    )


def _decision(members: dict[str, Any]) -> Callable[[], Decision]:
    table = compile_policy(msgspec.convert(members, Policy), salt=_SALT, position=7)
    return lambda: decide_route(table, _KEY, _NOW_MS, _ATTRIBUTES)


def _signing(decision: Decision) -> Callable[[], str]:
    def signed() -> str:
        receipt = receipt_for(
            decision,
            tenant="acme",
            endpoint="chat",
            now_ms=_NOW_MS,
            request_id="0198d1c2-7a54-7b1e-8f3a-0123456789ab",
        )
        return sign(receipt, _SECRET)

    return signed


def _median_us(call: Callable[[], object], calls: int) -> float:
    per_repeat = max(1, calls // REPEATS)
    return median(timeit.repeat(call, number=per_repeat, repeat=REPEATS)) / per_repeat * 1e6

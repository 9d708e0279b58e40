"""What a routing decision and a receipt cost. Prints a table; asserts nothing about time."""

from __future__ import annotations

import timeit
from collections.abc import Callable, Mapping
from statistics import median
from typing import Final

import msgspec

from engine.routing import compile_policy, decide_route, open_receipt, receipt_for, sign
from events.catalogue.endpoints import Policy

CALLS: Final = 2_000
ROUNDS: Final = 50
NOW_MS: Final = 1_800_000_000_000
SECRET: Final = b"a secret of this bench, 32 bytes"

RULES: Final = [
    {
        "name": "office hours",
        "when": {"days": ["mon"], "from": "09:00", "to": "17:00", "timezone": "Europe/Paris"},
        "split": {"2.0.0": 100},
    },
    {"name": "beta", "when": {"attributes": {"tier": "beta"}}, "split": {"2.0.0": 100}},
]
POLICIES: Final[Mapping[str, dict[str, object]]] = {
    "one version": {"split": {"1.0.0": 100}},
    "canary": {"split": {"1.0.0": 90, "2.0.0": 10}},
    "five versions": {"split": {f"{i}.0.0": i for i in range(1, 6)}},
    "canary, two rules, shadow": {
        "split": {"1.0.0": 90, "2.0.0": 10},
        "rules": RULES,
        "shadow": [{"version": "3.0.0", "fraction": 0.5}],
    },
}


def median_ns(call: Callable[[], object]) -> float:
    """Per call, the median over rounds; includes about 50 ns of the measuring loop."""
    rounds = timeit.repeat(call, number=CALLS, repeat=ROUNDS)
    return median(rounds) / CALLS * 1e9


def measure() -> dict[str, float]:
    """What is measured -> median nanoseconds."""
    figures = {}
    for name, members in POLICIES.items():
        table = compile_policy(msgspec.convert(members, Policy), salt="acme/chat", position=7)
        attributes = {"tier": "free"}
        figures[f"decision: {name}"] = median_ns(
            lambda table=table, attributes=attributes: decide_route(
                table, "user-123456", NOW_MS, attributes
            )
        )
    decision = decide_route(table, "user-123456", NOW_MS, attributes)

    def signed() -> str:
        receipt = receipt_for(
            decision,
            tenant="acme",
            endpoint="chat",
            now_ms=NOW_MS,
            request_id="0198d1c2-7a54-7b1e-8f3a-0123456789ab",
        )
        return sign(receipt, SECRET)

    text = signed()
    figures["receipt: make and sign"] = median_ns(signed)
    figures["receipt: open"] = median_ns(lambda: open_receipt(text, SECRET))
    return figures


if __name__ == "__main__":
    for name, nanoseconds in measure().items():
        print(f"{name:<40}{nanoseconds:>10.0f} ns")

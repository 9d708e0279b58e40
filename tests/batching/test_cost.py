"""What a step costs, counted in calls of functions: the same on every machine."""

from __future__ import annotations

import sys
from typing import Any

from engine.batching import Batch, Drawn
from tests.batching.fakes import FakeExecutor, World

CALLS_MAX = 8
"""For each running request in a step, in Python and in C together."""


class Quick(FakeExecutor):
    def execute(self, batch: Batch) -> Drawn:
        return Drawn([5] * len(batch.sampled))


def calls_in_step(running: int) -> float:
    world = World(
        executor=Quick(blocks=20 * running, block_tokens=16),
        batch_max=running,
        step_tokens_max=4 * running,
    )
    for index in range(running):
        world.submit([1, 2], 100, tenant=str(index % 3), stop=("never",), deadline_s=1e9)
    world.scheduler.step()
    assert world.running == running
    calls = 0

    def count(_frame: Any, event: str, _argument: Any) -> None:
        nonlocal calls
        calls += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        world.scheduler.step()
    finally:
        sys.setprofile(None)
    return calls / running


def test_a_step_calls_few_functions_for_each_running_request_however_many_run() -> None:
    """Nothing hidden: a text formatted for a log, a copy, a search through all others."""
    few, many = calls_in_step(64), calls_in_step(1024)
    assert many <= CALLS_MAX
    assert many <= few

"""An executor that fails: what is tried again, who is failed, and that it goes on."""

from __future__ import annotations

import math

import pytest

from engine.batching import Batch, Closed, Drawn, ExecutorLost
from tests.batching.fakes import FakeExecutor, World

BAD = 666


@pytest.mark.parametrize("failures", [1, 2])
def test_an_executor_that_fails_once_or_twice_is_tried_again_and_nobody_notices(
    failures: int,
) -> None:  # B14
    world = World()
    numbers = [world.submit([token], 6) for token in (1, 10, 20)]
    world.step()
    world.executor.failures_left = failures
    world.run()
    assert [world.tokens(number)[-1] for number in numbers] == [7, 16, 26]
    assert {world.ending(number) for number in numbers} == {"length"}
    assert world.scheduler.statistics().executor_failures == failures


def test_a_prompt_that_cannot_be_computed_fails_its_request_alone() -> None:  # B15
    world = World()
    world.executor.poison = {BAD}
    running = world.submit([1], 8)
    world.step()
    bad = world.submit([5, BAD], 8)
    beside = world.submit([9], 8)
    world.step()
    assert world.ending(bad) == "failed"
    assert world.chunks[bad][-1].detail == "poisoned"
    assert [len(world.tokens(number)) for number in (running, beside)] == [2, 1]
    world.run()
    assert world.tokens(running) == [2, 3, 4, 5, 6, 7, 8, 9]
    assert world.tokens(beside) == [10, 11, 12, 13, 14, 15, 16, 17]
    assert world.used == 0


def test_a_request_that_makes_a_later_step_fail_is_failed_alone_with_what_it_had() -> None:
    world = World()
    world.executor.poison = {4}
    bad = world.submit([1], 8)
    good = world.submit([10], 8)
    world.run()
    assert (world.tokens(bad), world.ending(bad)) == ([2, 3, 4], "failed")
    assert (len(world.tokens(good)), world.ending(good)) == (8, "length")


@pytest.mark.parametrize("bad_ones", [{0}, {63}, {31, 32}, {0, 17, 40}])
def test_bad_requests_among_many_are_found_in_few_executions(bad_ones: set[int]) -> None:
    world = World(executor=FakeExecutor(blocks=200))
    world.executor.poison = {BAD}
    executions: list[int] = []
    world.executor.during = lambda batch: executions.append(len(batch.requests))
    numbers = [world.submit([BAD if i in bad_ones else 1], 1) for i in range(64)]
    world.step()
    for index, number in enumerate(numbers):
        assert world.ending(number) == ("failed" if index in bad_ones else "length")
    assert len(executions) <= 3 + len(bad_ones) * (2 * math.log2(64) + 2)


def test_a_request_alone_is_not_failed_for_one_bad_moment_of_the_executor() -> None:
    world = World()
    world.executor.failures_left = 6  # the batch three times, both halves, one request once
    numbers = [world.submit([1], 2) for _ in range(2)]
    world.run()
    assert [world.ending(number) for number in numbers] == ["failed", "length"]
    world.executor.failures_left = 2
    assert world.ending(alone := world.submit([1], 2)) is None
    world.run()
    assert world.ending(alone) == "length"


def test_what_failed_is_never_shared_with_others() -> None:
    world = World()
    world.executor.poison = {BAD}
    world.submit([1, 2, 3, BAD, 5], 2)
    world.run()
    world.executor.poison = ()
    again = world.submit([1, 2, 3, BAD, 5], 2)
    world.run()
    assert world.scheduler.statistics().prefix_cache_hits == 0
    assert world.tokens(again) == [6, 7]


def test_an_executor_that_always_fails_fails_every_request_and_stops_nothing() -> None:
    world = World()
    world.executor.failures_left = 10**9
    numbers = [world.submit([1], 2) for _ in range(10)]
    world.run()
    assert {world.ending(number) for number in numbers} == {"failed"}
    world.executor.failures_left = 0
    later = world.submit([1], 2)
    world.run()
    assert world.ending(later) == "length"


class Broken(FakeExecutor):
    """Raises what it should not, or answers too little."""

    def execute(self, batch: Batch) -> Drawn:
        if BAD in batch.tokens:
            raise IndexError("out of bounds")
        if 555 in batch.tokens:
            return Drawn([])
        if 444 in batch.tokens:
            return Drawn([1] * len(batch.sampled), [])
        return super().execute(batch)


@pytest.mark.parametrize(
    ("token", "detail"),
    [
        (BAD, "IndexError: out of bounds"),
        (555, "0 draws for 1 requests"),
        (444, "0 draws for 1 requests"),
    ],
)
def test_any_error_and_any_wrong_answer_of_an_executor_is_its_failure(
    token: int, detail: str
) -> None:
    world = World(executor=Broken())
    bad, good = world.submit([token], 2), world.submit([1], 2)
    world.run()
    assert (world.ending(bad), world.chunks[bad][-1].detail) == ("failed", detail)
    assert world.tokens(good) == [2, 3]


def test_a_token_that_is_none_fails_its_request_alone() -> None:
    world = World(executor=FakeExecutor(rule=lambda text: 5000 if text[-1] == 9 else 1))
    bad, good = world.submit([9], 2), world.submit([1], 2)
    world.run()
    assert world.ending(bad) == "failed"
    assert world.tokens(good) == [1, 1]
    assert world.used == 0


class Mortal(FakeExecutor):
    def execute(self, batch: Batch) -> Drawn:
        if len(self.batches) == 2:
            raise ExecutorLost("killed")
        return super().execute(batch)


def test_a_lost_executor_fails_everybody_at_once_and_takes_nobody_in() -> None:
    world = World(executor=Mortal(), batch_max=2)
    numbers = [world.submit([1], 9) for _ in range(4)]
    world.run()
    assert {world.ending(number) for number in numbers} == {"failed"}
    assert {world.chunks[number][-1].detail for number in numbers} == {"killed"}
    assert len(world.tokens(numbers[0])) == 2
    assert world.scheduler.lost is not None
    assert world.used == 0
    with pytest.raises(Closed):
        world.submit()

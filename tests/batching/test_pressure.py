"""More requests than blocks: preemption, places kept, and progress all the same."""

from __future__ import annotations

import pytest

from engine.batching import Priority, QueueFull
from tests.batching.fakes import FakeExecutor, World


def pressed(blocks: int = 6, **limits: float) -> World:
    return World(executor=FakeExecutor(blocks=blocks), watermark=0.0, **limits)


def test_the_worst_priority_is_preempted_first_then_the_latest() -> None:
    world = pressed(blocks=6)
    low = world.submit([1, 1], 12, priority=Priority.LOW)
    early = world.submit([2, 2], 12)
    late = world.submit([3, 3], 12)
    world.run()
    starts: dict[int, list[int]] = {low: [], early: [], late: []}
    for index, batch in enumerate(world.executor.batches):
        for number, start in zip(batch.requests, batch.starts, strict=True):
            if start == 0:
                starts[number].append(index)
    assert len(starts[early]) == 1
    assert len(starts[low]) >= 2
    assert world.tokens(low) == list(range(2, 14))
    assert world.tokens(late) == list(range(4, 16))


def test_a_preempted_request_keeps_its_place_before_those_that_came_after_it() -> None:
    world = pressed(blocks=6, passes_max=0)
    world.submit([1, 1], 20)
    second = world.submit([2, 2], 20)
    while not world.scheduler.statistics().num_preemptions:
        world.step()
    preempted_at = len(world.executor.batches)
    third = world.submit([3], 4)
    world.run()
    later = [batch.requests for batch in world.executor.batches[preempted_at:]]
    begins = {
        number: next(index for index, requests in enumerate(later) if number in requests)
        for number in (second, third)
    }
    assert 0 < begins[second] <= begins[third]
    assert world.tokens(second) == list(range(3, 23))


def test_nobody_is_admitted_in_a_step_that_preempted_but_in_the_next() -> None:
    world = World(executor=FakeExecutor(blocks=12), watermark=0.0, batch_max=2)
    world.submit([1] * 3, 40)
    large, small = world.submit([2] * 24, 20), world.submit([3], 2)
    while not world.scheduler.statistics().num_preemptions:
        world.step()
    assert world.scheduler.statistics().num_requests_running == 1
    assert world.used < 12 - 2  # there was a place, and there were blocks
    world.step()
    assert world.tokens(small)
    world.run()
    assert world.tokens(large) == list(range(3, 23))


def test_preempted_requests_take_no_place_in_the_queue_from_those_that_wait() -> None:
    world = pressed(blocks=6, batch_max=2, waiting_max=1)
    world.submit([1, 1], 20)
    world.step()
    second = world.submit([2, 2], 20)
    while not world.scheduler.statistics().num_preemptions:
        world.step()
    world.submit([3], 1)  # beside the one that was preempted
    with pytest.raises(QueueFull):
        world.submit([3], 1)
    world.run()
    assert world.ending(second) == "length"
    world.submit([3], 1)
    with pytest.raises(QueueFull):
        world.submit([3], 1)


def test_a_preempted_request_answers_as_if_nothing_had_happened() -> None:
    world = pressed(blocks=5)
    numbers = [world.submit([10 * i + 1, 10 * i + 2], 14, stop=("zz",)) for i in range(4)]
    world.run()
    assert world.scheduler.statistics().num_preemptions
    for index, number in enumerate(numbers):
        begin = 10 * index + 3
        assert world.tokens(number) == list(range(begin, begin + 14))
        assert world.ending(number) == "length"


@pytest.mark.parametrize("blocks", [3, 4, 5, 7])
@pytest.mark.parametrize("watermark", [0.0, 0.3, 0.9])
def test_every_step_computes_something_under_any_pressure(blocks: int, watermark: float) -> None:
    """No empty schedules for ever."""
    world = World(executor=FakeExecutor(blocks=blocks), watermark=watermark)
    for index in range(10):
        world.submit([index + 1] * (1 + index % 4), 8, priority=Priority(index % 3))
    while world.scheduler.busy:
        batches = len(world.executor.batches)
        world.step()
        assert len(world.executor.batches) == batches + 1
    assert world.used == 0


def test_a_request_that_needs_every_block_completes_beside_others() -> None:
    world = pressed(blocks=5)
    small = [world.submit([2], 6) for _ in range(6)]
    large = world.submit([1] * 16, 5)
    world.run()
    assert {world.ending(number) for number in [*small, large]} == {"length"}
    assert world.used == 0


def test_the_watermark_leaves_blocks_for_those_that_run() -> None:
    world = World(executor=FakeExecutor(blocks=10), watermark=0.3)
    world.submit([1] * 12, 4, tenant="a")
    world.submit([1] * 12, 4, tenant="b")
    world.submit([1] * 12, 4, tenant="c")
    world.step()
    assert world.running == 2
    assert world.used == 6


def test_an_admission_leaves_a_block_to_grow_for_everybody_who_runs() -> None:
    world = World(executor=FakeExecutor(blocks=10), watermark=0.0)
    for tenant in "abcdef":
        world.submit([1] * 3, 9, tenant=tenant)
    world.step()
    assert (world.running, world.used) == (5, 5)
    for _ in range(3):
        world.step()
    assert world.scheduler.statistics().num_preemptions == 0


def test_memory_is_back_where_it_was_after_long_prompts() -> None:  # B17
    world = World(executor=FakeExecutor(blocks=3000, context_tokens=11_000))
    numbers = [world.submit([index + 1] * 10_000, 5) for index in range(10)]
    world.run()
    assert {world.ending(number) for number in numbers} == {"length"}
    assert (world.used, world.scheduler.busy) == (0, False)
    assert len(world.scheduler._generations) == 0

"""What is in a batch: limits, order, prompts in pieces, and who may go before whom."""

from __future__ import annotations

import pytest

from engine.batching import (
    ContextExceeded,
    Limits,
    NeverFits,
    Priority,
    QueueFull,
    Request,
    RequestInvalid,
)
from tests.batching.fakes import FakeExecutor, World


def firsts(world: World) -> list[int]:
    """Requests in the order in which they were first computed."""
    return list(dict.fromkeys(number for number, _ in world.executor.computed))


def test_twenty_concurrent_requests_complete_each_with_its_own_answer() -> None:  # B03
    world = World(executor=FakeExecutor(blocks=200))
    numbers = {world.submit([10 * i + 1], 5): 10 * i + 2 for i in range(20)}
    world.run()
    for number, begin in numbers.items():
        assert world.tokens(number) == list(range(begin, begin + 5))


def test_a_place_that_becomes_free_is_taken_in_the_next_step() -> None:  # B04
    world = World(batch_max=2)
    long, short = world.submit([1], 20), world.submit([1], 2)
    waits = world.submit([1], 2)
    world.step()
    world.step()
    assert world.ending(short) == "length"
    assert not world.chunks[waits]
    world.step()
    assert len(world.chunks[waits]) == 1
    assert world.ending(long) is None


def test_no_batch_exceeds_its_limits_and_metrics_show_it() -> None:  # B05
    world = World(executor=FakeExecutor(blocks=500), batch_max=7, step_tokens_max=20)
    for index in range(40):
        world.submit([1 + index] * (1 + index % 30), 1 + index % 6)
    world.run()
    batches = world.executor.batches
    assert max(len(batch.requests) for batch in batches) == 7
    assert max(len(batch.tokens) for batch in batches) <= 20
    statistics = world.scheduler.statistics()
    assert (statistics.batch_size_max, statistics.batch_max) == (7, 7)
    assert statistics.batch_size_sum == sum(len(batch.requests) for batch in batches)


def test_a_prompt_is_computed_in_pieces_and_nobody_waits_for_it() -> None:
    """A long prefill starves nobody: those who answer get a token in every step."""
    world = World(executor=FakeExecutor(blocks=400, context_tokens=2000), prefill_tokens_max=16)
    answering = world.submit([1], 50)
    world.step()
    long = world.submit([3] * 400, 2)
    for steps in range(1, 26):
        world.step()
        assert len(world.tokens(answering)) == 1 + steps
    assert [count for number, count in world.executor.computed if number == long] == [16] * 25
    assert len(world.tokens(long)) == 1


def test_short_requests_begin_at_once_while_long_prompts_are_computed() -> None:
    """As with ten prompts of 10,000 characters: at most two are under way, with a cap each."""
    world = World(
        executor=FakeExecutor(blocks=4000, context_tokens=2000),
        prefill_tokens_max=32,
        step_tokens_max=128,
    )
    long = [world.submit([3] * 500, 2, tenant=str(i)) for i in range(10)]
    world.step()
    short = world.submit([1] * 10, 2)
    world.step()
    assert len(world.tokens(short)) == 1
    world.run()
    assert {world.ending(number) for number in long} == {"length"}
    assert firsts(world) == [*long[:2], short, *long[2:]]


def test_no_more_long_prompts_are_under_way_than_allowed() -> None:
    world = World(executor=FakeExecutor(blocks=4000), prefill_tokens_max=8, long_prefills_max=3)
    for tenant in "abcdef":
        world.submit([3] * 100, 2, tenant=tenant)
    world.run()
    assert max(sum(c > 1 for c in batch.counts) for batch in world.executor.batches) == 3


def test_a_request_larger_than_the_free_blocks_does_not_hold_up_those_behind_it() -> None:
    """No head-of-line blocking."""
    world = World(executor=FakeExecutor(blocks=16), watermark=0.0)
    world.submit([1] * 20, 12)
    world.step()
    large, small = world.submit([2] * 60, 4), world.submit([3], 2)
    world.step()
    assert (len(world.tokens(large)), len(world.tokens(small))) == (0, 1)


def test_a_request_that_does_not_fit_is_passed_so_often_and_no_more() -> None:
    world = World(executor=FakeExecutor(blocks=16), watermark=0.0, passes_max=3)
    world.submit([1] * 20, 12)
    world.step()
    large = world.submit([2] * 60, 4)
    small = [world.submit([3], 2, tenant=str(i)) for i in range(10)]
    world.run()
    order = firsts(world)
    assert order[1:5] == [*small[:3], large]
    assert world.ending(large) == "length"


def test_so_many_requests_that_do_not_fit_are_looked_past_and_no_more() -> None:
    world = World(executor=FakeExecutor(blocks=16), watermark=0.0, skip_ahead_max=2)
    world.submit([1] * 20, 30)
    world.step()
    for _ in range(2):
        world.submit([2] * 60, 4)
    behind_two = world.submit([3], 2)
    world.step()
    assert world.tokens(behind_two)
    world.submit([2] * 60, 4, priority=Priority.HIGH)
    behind_three = world.submit([3], 2)
    world.step()
    assert not world.tokens(behind_three)


def test_high_goes_before_normal_and_normal_before_low() -> None:  # B18
    world = World(batch_max=1)
    first = world.submit([1], 3)
    world.step()
    low = world.submit([1], 2, priority=Priority.LOW)
    normal = world.submit([1], 2)
    high = world.submit([1], 2, priority=Priority.HIGH)
    high_too = world.submit([1], 2, priority=Priority.HIGH)
    world.run()
    assert firsts(world) == [first, high, high_too, normal, low]


def test_low_is_not_starved_by_a_stream_of_high_beyond_the_ageing_bound() -> None:  # B18
    world = World(batch_max=1, ageing_seconds=5)
    world.submit([1], 1, priority=Priority.HIGH)
    low = world.submit([1], 1, priority=Priority.LOW)
    steps = 0
    while not world.tokens(low):
        world.submit([1], 1, priority=Priority.HIGH)
        world.step(seconds=1.0)
        steps += 1
        assert steps <= 12  # two classes of 5 s each, the one before, and its own
    assert steps >= 10


def test_what_can_never_fit_is_refused_at_once() -> None:
    world = World(executor=FakeExecutor(blocks=4, block_tokens=4, context_tokens=50))
    with pytest.raises(ContextExceeded):
        world.submit([1] * 40, 11)
    with pytest.raises(NeverFits) as refusal:
        world.submit([1] * 10, 8)
    assert (refusal.value.blocks, refusal.value.total) == (5, 4)
    number = world.submit([1] * 10, 7)  # the last token is followed by nothing
    world.run()
    assert (len(world.tokens(number)), world.ending(number)) == (7, "length")
    assert world.scheduler.statistics().requests_refused == 2


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (Request(prompt=(), max_tokens=1), "prompt"),
        (Request(prompt=(1,), max_tokens=0), "max_tokens"),
        (Request(prompt=(1,), max_tokens=-1), "max_tokens"),
        (Request(prompt=(1,), max_tokens=1, stop=("",)), "stop[0]"),
        (Request(prompt=(1,), max_tokens=1, stop=("ok", "x" * 1_000_000)), "stop[1]"),
        (Request(prompt=(1,), max_tokens=1, stop=("x",) * 100_000), "stop"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(request_: Request, field: str) -> None:
    world = World()
    with pytest.raises(RequestInvalid) as refusal:
        world.scheduler.submit(request_)
    assert refusal.value.field == field
    assert not world.scheduler.busy


def test_a_full_queue_refuses_and_takes_in_again_when_somebody_has_begun() -> None:
    world = World(batch_max=1, waiting_max=2)
    world.submit([1], 2)
    world.step()
    world.submit([1], 2)
    world.submit([1], 2)
    with pytest.raises(QueueFull):
        world.submit([1], 2)
    world.step()
    world.step()
    world.submit([1], 2)
    world.run()


@pytest.mark.parametrize(
    ("limits", "field"),
    [
        ({"batch_max": 0}, "batch_max"),
        ({"batch_max": 64, "step_tokens_max": 63}, "step_tokens_max"),
        ({"watermark": 1.0}, "watermark"),
        ({"passes_max": -1}, "passes_max"),
    ],
)
def test_limits_that_no_step_could_keep_are_refused(limits: dict[str, int], field: str) -> None:
    with pytest.raises(ValueError, match=field):
        Limits(**limits)


def test_blocks_are_bounded_by_bytes() -> None:  # B09
    megabyte = 2**20
    world = World(
        executor=FakeExecutor(blocks=1000, block_bytes=megabyte), kv_bytes_max=100 * megabyte
    )
    for index in range(20):
        world.submit([index + 1] * 30, 40)
    most = 0
    while world.scheduler.busy:
        world.step()
        statistics = world.scheduler.statistics()
        assert statistics.kv_bytes_used <= statistics.kv_bytes_total == 100 * megabyte
        assert all(n < 100 for table in world.executor.batches[-1].tables for n in table)
        most = max(most, statistics.kv_bytes_used)
    assert most > 90 * megabyte
    assert world.used == 0

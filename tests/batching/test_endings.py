"""Every way in which a request ends, and what it leaves behind: nothing."""

from __future__ import annotations

import pytest

from engine.batching import Batch, Priority
from tests.batching.fakes import EOS, FakeExecutor, World, counting


def test_a_request_ends_at_exactly_max_tokens_and_says_so() -> None:  # B07
    world = World()
    for max_tokens in (1, 2, 3, 4, 5, 9):
        number = world.submit([7], max_tokens)
        world.run()
        assert world.tokens(number) == list(range(8, 8 + max_tokens))
        assert world.ending(number) == "length"


def test_max_tokens_costs_no_step_after_the_last_token() -> None:
    world = World()
    world.submit([1], 3)
    assert world.run() == 3


def test_a_request_ends_at_the_end_of_sequence_before_max_tokens_and_says_so() -> None:  # B06
    executor = FakeExecutor(rule=lambda text: EOS if text[-1] == 5 else counting(text))
    world = World(executor=executor)
    number = world.submit([1], 50)
    world.run()
    assert world.tokens(number) == [2, 3, 4, 5]
    assert world.text(number) == "<2><3><4><5>"
    assert world.ending(number) == "stop"
    assert world.used == 0


def test_an_answer_may_be_empty() -> None:
    world = World(executor=FakeExecutor(rule=lambda text: EOS))
    number = world.submit([1], 50)
    world.run()
    assert (world.tokens(number), world.ending(number)) == ([], "stop")


def test_a_model_without_an_end_of_sequence_answers_to_the_limit() -> None:
    world = World(executor=FakeExecutor(rule=lambda text: EOS, eos=None))
    number = world.submit([1], 3)
    world.run()
    assert (world.tokens(number), world.ending(number)) == ([EOS] * 3, "length")


def test_a_stop_string_across_token_borders_ends_the_answer_and_is_not_in_it() -> None:  # B21
    world = World()
    number = world.submit([1], 50, stop=("4><5", "never"))
    world.run()
    assert world.text(number) == "<2><3><"
    assert world.ending(number) == "stop"
    assert world.used == 0


def test_what_looked_like_a_stop_string_is_told_at_the_end() -> None:
    world = World()
    number = world.submit([1], 3, stop=("4>x",))
    world.run()
    assert world.text(number) == "<2><3><4>"
    assert world.ending(number) == "length"


def test_a_running_request_ends_at_its_deadline_with_what_it_has() -> None:  # B21
    world = World()
    number = world.submit([1], 50, deadline_s=3.5, stop=("4>x",))
    world.run()
    assert world.text(number) == "<2><3><4>"
    assert world.ending(number) == "deadline"
    assert world.used == 0


def test_a_waiting_request_ends_at_its_deadline_without_being_computed() -> None:
    world = World(batch_max=1)
    world.submit([1], 10)
    waits = world.submit([1], 10, deadline_s=5)
    world.run()
    assert (world.tokens(waits), world.ending(waits)) == ([], "deadline")
    assert waits not in {number for number, _ in world.executor.computed}


def test_a_deadline_in_the_past_ends_a_request_in_the_next_step() -> None:
    world = World()
    number = world.submit([1], 10, deadline_s=-1.0)
    world.step()
    assert world.ending(number) == "deadline"
    assert not world.executor.batches


def test_deadlines_of_ended_requests_do_not_pile_up() -> None:
    world = World()
    for _ in range(1000):
        world.submit([1], 1, deadline_s=1e9)
        world.run()
    assert len(world.scheduler._deadlines) <= 65


def test_a_cancelled_request_frees_its_blocks_at_once_and_says_nothing_more() -> None:  # B08, B10
    world = World()
    number = world.submit([1] * 9, 50)
    world.step()
    assert world.used == 3
    assert world.scheduler.cancel(number)
    assert world.used == 0
    assert not world.scheduler.busy
    assert world.step() == []


def test_a_waiting_request_can_be_cancelled() -> None:
    world = World(batch_max=1)
    first, second = world.submit(), world.submit()
    world.step()
    assert world.scheduler.cancel(second)
    world.run()
    assert world.ending(first) == "length"
    assert second not in {number for number, _ in world.executor.computed}


def test_a_preempted_request_can_be_cancelled() -> None:
    world = World(executor=FakeExecutor(blocks=4), watermark=0.0)
    first = world.submit([1, 2, 3], 10)
    second = world.submit([1, 2, 3], 10)
    while not world.scheduler.statistics().num_preemptions:
        world.step()
    assert world.scheduler.cancel(second)
    world.run()
    assert world.tokens(first) == list(range(4, 14))
    assert world.used == 0


def test_a_request_can_be_cancelled_in_the_middle_of_its_prompt() -> None:
    world = World(prefill_tokens_max=4)
    number = world.submit([1] * 30, 4)
    world.step()
    world.scheduler.cancel(number)
    assert (world.used, world.scheduler.busy) == (0, False)


@pytest.mark.parametrize("steps_before", range(4))
def test_cancelling_while_the_step_is_computed_frees_everything(steps_before: int) -> None:
    """As when a client hangs up during its last step, the third."""
    world = World()
    number = world.submit([1] * 3, 3)
    other = world.submit([5] * 3, 6)
    for _ in range(steps_before):
        world.step()

    def hang_up(_batch: Batch) -> None:
        assert world.scheduler.cancel(number) == (steps_before < 3)

    world.executor.during = hang_up
    world.step()
    world.executor.during = lambda _batch: None
    assert len(world.tokens(number)) == min(3, steps_before)
    world.run()
    assert world.tokens(other) == [6, 7, 8, 9, 10, 11]
    assert world.used == 0


def test_nothing_of_a_request_that_was_cancelled_while_computed_is_shared() -> None:
    world = World()
    number = world.submit([1, 2, 3, 4, 5], 3)
    world.executor.during = lambda _batch: world.scheduler.cancel(number)
    world.step()
    world.executor.during = lambda _batch: None
    again = world.submit([1, 2, 3, 4, 5], 3)
    world.run()
    assert world.scheduler.statistics().prefix_cache_hits == 0
    assert world.tokens(again) == [6, 7, 8]


def test_cancelling_twice_or_after_the_end_or_something_unknown_does_nothing() -> None:
    world = World()
    number = world.submit([1], 1)
    world.run()
    assert not world.scheduler.cancel(number)
    assert not world.scheduler.cancel(12345)
    other = world.submit([1], 5)
    assert world.scheduler.cancel(other)
    assert not world.scheduler.cancel(other)


def test_an_abort_ends_everything_with_a_last_chunk_each() -> None:
    world = World(batch_max=2)
    numbers = [world.submit([1], 9, priority=Priority(i % 3)) for i in range(5)]
    world.step()
    world.take(world.scheduler.abort())
    assert {world.ending(number) for number in numbers} == {"aborted"}
    assert (world.used, world.scheduler.busy) == (0, False)


def test_requests_may_come_while_a_step_is_computed() -> None:
    world = World()
    first = world.submit([1], 3)
    late: list[int] = []
    world.executor.during = lambda _batch: late or late.append(world.submit([5], 2))
    world.run()
    assert world.tokens(first) == [2, 3, 4]
    assert world.tokens(late[0]) == [6, 7]

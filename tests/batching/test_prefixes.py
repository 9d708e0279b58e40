"""Prefixes that several requests have in common are computed once."""

from __future__ import annotations

from engine.batching import Drawn
from tests.batching.fakes import FakeExecutor, World


def computed(world: World, number: int) -> int:
    return sum(count for owner, count in world.executor.computed if owner == number)


def steps_to_first_token(world: World, prompt: list[int]) -> int:
    number = world.submit(prompt, 2)
    steps = 0
    while not world.tokens(number):
        world.step()
        steps += 1
    world.run()
    return steps


def test_a_shared_prefix_is_computed_once_and_the_second_first_token_comes_sooner() -> None:  # B19
    world = World(executor=FakeExecutor(blocks=400, context_tokens=1000), prefill_tokens_max=64)
    shared = list(range(1, 513))
    assert steps_to_first_token(world, [*shared, 600, 601]) == 9
    assert steps_to_first_token(world, [*shared, 700, 701]) == 1
    statistics = world.scheduler.statistics()
    assert computed(world, 2) == 2 + 1
    assert (statistics.prefix_cache_queries, statistics.prefix_cache_hits) == (1028, 512)
    assert statistics.prefix_cache_hit_rate == 512 / 1028


def test_of_many_requests_that_come_together_with_a_long_prompt_few_compute_it() -> None:
    """Those that wait for their turn with a long prompt find it computed when that comes."""
    world = World(executor=FakeExecutor(blocks=400, context_tokens=1000), long_prefills_max=2)
    shared = list(range(1, 401))
    numbers = [world.submit([*shared, 500 + index], 2) for index in range(20)]
    world.run()
    in_full = [number for number in numbers if computed(world, number) > 100]
    assert in_full == numbers[:2]


def test_the_last_token_is_computed_even_if_all_of_the_prompt_is_known() -> None:
    world = World()
    prompt = list(range(1, 9))
    for _ in range(2):
        number = world.submit(prompt, 2)
        world.run()
        assert world.tokens(number) == [9, 10]
    assert computed(world, 2) == 4 + 1


def test_a_running_request_shares_what_it_has_computed_and_both_answers_are_right() -> None:
    world = World()
    first = world.submit(list(range(1, 10)), 20)
    world.step()
    second = world.submit([*range(1, 9), 50], 20)
    world.step()
    assert world.used == 3 + 1
    world.run()
    assert world.tokens(first) == list(range(10, 30))
    assert world.tokens(second) == list(range(51, 71))


def test_answers_can_be_prefixes_too() -> None:
    world = World()
    world.submit([1, 2, 3], 10)
    world.run()
    number = world.submit(list(range(1, 14)), 1)
    world.run()
    assert computed(world, number) == 1


def test_a_prefix_of_another_tenant_is_not_found() -> None:
    world = World()
    for tenant in ("acme", "globex"):
        world.submit(list(range(1, 10)), 2, tenant=tenant)
        world.run()
    assert world.scheduler.statistics().prefix_cache_hits == 0


def test_the_longest_unused_prefix_makes_room_for_new_requests() -> None:
    world = World(executor=FakeExecutor(blocks=8), watermark=0.0)
    for begin in (100, 200):
        world.submit(list(range(begin, begin + 13)), 1)
        world.run()
    world.submit(list(range(300, 317)), 1)  # takes five blocks: of the first, and two unnamed
    world.run()
    hits = world.scheduler.statistics().prefix_cache_hits
    world.submit(list(range(200, 213)), 1)
    world.run()
    assert world.scheduler.statistics().prefix_cache_hits == hits + 12


def test_a_preempted_request_finds_what_it_had_computed_itself() -> None:
    world = World(executor=FakeExecutor(blocks=6), watermark=0.0)
    numbers = [world.submit([begin, begin + 1], 18) for begin in (100, 200)]
    world.run()
    statistics = world.scheduler.statistics()
    assert statistics.num_preemptions == 1
    assert computed(world, numbers[1]) < 2 * 19
    assert world.tokens(numbers[1]) == list(range(202, 220))


def test_details_of_the_runtime_reach_the_chunk_of_their_token() -> None:
    class Telling(FakeExecutor):
        def execute(self, batch):  # type: ignore[no-untyped-def]
            drawn = super().execute(batch)
            return Drawn(drawn.tokens, [{"token": token} for token in drawn.tokens])

    world = World(executor=Telling())
    number = world.submit([1], 3)
    world.run()
    assert [chunk.detail for chunk in world.chunks[number]] == [{"token": t} for t in (2, 3, 4)]

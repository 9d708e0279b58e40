"""What a scheduler says of itself adds up."""

from __future__ import annotations

import random

import msgspec
import pytest

from tests.batching.fakes import FakeExecutor, World


def test_capacity_falls_when_a_request_ends_and_running_and_waiting_are_told() -> None:  # B10
    world = World(executor=FakeExecutor(blocks=10), batch_max=2)
    world.submit([1] * 4, 2, tenant="a")
    world.submit([1] * 4, 9, tenant="b")
    world.submit([1] * 4, 9, tenant="c")
    world.step()
    statistics = world.scheduler.statistics()
    assert (statistics.num_requests_running, statistics.num_requests_waiting) == (2, 1)
    assert (statistics.kv_blocks_used, statistics.kv_cache_usage) == (2, 0.2)
    assert statistics.kv_bytes_used == 2 * world.executor.block_bytes
    world.step()
    assert world.used == 2
    assert (world.running, world.scheduler.statistics().num_requests_waiting) == (1, 1)


def test_tokens_over_time_is_the_throughput_that_callers_see() -> None:  # B11
    world = World(executor=FakeExecutor(blocks=400))
    world.clock.now_s = 1_000.5
    for index in range(30):
        world.submit([index + 1], 1 + index)
    seconds = 0.25 * world.run(seconds=0.25)
    statistics = world.scheduler.statistics()
    told = sum(len(world.tokens(number)) for number in world.chunks)
    assert statistics.generation_tokens == told == sum(range(1, 31))
    assert seconds == world.clock.now_s - 1_000.5
    assert statistics.requests_per_s == pytest.approx(30 / seconds)
    assert statistics.tokens_per_s == pytest.approx(told / seconds)


def test_percentiles_are_in_order_under_load_and_right() -> None:  # B12
    world = World(batch_max=4)
    for _ in range(200):
        world.submit([1], 4)
    world.run(seconds=0.125)
    e2e = world.scheduler.statistics().e2e_request_latency
    assert e2e.p50_s is not None and e2e.p95_s is not None and e2e.p99_s is not None
    assert e2e.p50_s < e2e.p95_s < e2e.p99_s
    assert e2e.count == 200
    assert e2e.p50_s == pytest.approx(12.5, rel=0.05)


def test_batches_of_mixed_lengths_are_well_used() -> None:  # B13
    world = World(executor=FakeExecutor(blocks=2000), batch_max=8)
    chance = random.Random(7)
    for _ in range(300):
        world.submit([1], chance.randint(1, 40))
    world.run()
    assert world.scheduler.statistics().batch_utilisation > 0.97


def test_a_thousand_requests_complete_and_leave_nothing() -> None:  # B16
    world = World(executor=FakeExecutor(blocks=200), waiting_max=1000)
    numbers = [world.submit([1 + index % 900], 1 + index % 20) for index in range(1000)]
    world.run()
    statistics = world.scheduler.statistics()
    assert statistics.requests_ended == {"length": 1000}
    assert [len(world.tokens(number)) for number in numbers] == [1 + i % 20 for i in range(1000)]
    assert (world.used, world.scheduler.busy) == (0, False)
    assert not world.scheduler._composer.growing


def test_requests_that_have_ended_are_forgotten_whatever_they_brought() -> None:
    world = World()
    for index in range(500):
        options = {"stop": (f"stop {index}",), "tenant": f"tenant-{index}", "deadline_s": 1e9}
        cancelled = world.submit([index + 1], 3, **options)
        world.submit([index + 1], 2, **options)
        world.step()
        world.scheduler.cancel(cancelled)
        world.run()
    scheduler = world.scheduler
    assert not scheduler._generations
    assert len(scheduler._deadlines) <= 65
    assert len(scheduler._vocabulary._stops) <= 64
    assert len(scheduler._memory.pool._found) <= world.executor.blocks
    assert not scheduler._composer.growing


def test_times_are_from_arrival_to_admission_first_token_and_end() -> None:
    world = World(batch_max=1)
    world.submit([1], 4)
    world.submit([1], 5)
    world.run()
    statistics = world.scheduler.statistics()
    assert statistics.request_queue_time.sum_s == 1 + 5
    assert statistics.time_to_first_token.sum_s == 1 + 5
    assert statistics.e2e_request_latency.sum_s == 4 + 9
    assert statistics.time_per_output_token.sum_s == 2


def test_statistics_are_frozen_and_sane_before_the_first_request() -> None:
    statistics = World().scheduler.statistics()
    assert statistics.batch_utilisation == 0
    assert statistics.prefix_cache_hit_rate == 0
    assert statistics.e2e_request_latency.count == 0
    with pytest.raises(AttributeError):
        statistics.steps = 3  # type: ignore[misc]
    assert msgspec.json.decode(msgspec.json.encode(statistics))["kv_cache_usage"] == 0

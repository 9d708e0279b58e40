"""Rates are counts over time; percentiles are of now."""

from __future__ import annotations

from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batching.rates import RATE_SECONDS, Rates
from engine.batching.statistics import TURN_SECONDS, Timings
from tests.batching.fakes import FakeExecutor, World


def test_a_burst_is_its_count_over_the_time_since_it_began() -> None:
    rates = Rates()
    rates.arrived(1000.75)
    for index in range(20):
        rates.drew(5, 1001.0 + index / 8)
        rates.ended(1001.0 + index / 8)
    assert rates.per_second(1004.75) == (20 / 4, 100 / 4)


def test_what_is_steady_is_told_as_it_is_however_long_it_lasts() -> None:
    rates = Rates()
    for index in range(4 * 300):
        now_s = 7.125 + index / 4
        rates.arrived(now_s)
        rates.drew(10, now_s)
        rates.ended(now_s)
        if index > 200:
            requests, tokens = rates.per_second(now_s)
            assert requests == pytest.approx(4, rel=0.05)
            assert tokens == pytest.approx(40, rel=0.05)


def test_a_change_is_all_there_is_after_a_minute() -> None:
    rates = Rates()
    for second in range(100):
        rates.drew(1_000, float(second))
    for second in range(100, 100 + RATE_SECONDS + 1):
        rates.drew(10, float(second))
    _, tokens = rates.per_second(99.0 + RATE_SECONDS + 1)
    assert tokens == pytest.approx(10, rel=0.05)


def test_a_minute_after_the_last_of_it_there_is_nothing() -> None:
    rates = Rates()
    rates.arrived(10.0)
    rates.ended(10.5)
    assert rates.per_second(10.0 + RATE_SECONDS)[0] == pytest.approx(1 / RATE_SECONDS)
    assert rates.per_second(11.0 + RATE_SECONDS) == (0.0, 0.0)


def test_a_rate_of_no_time_is_none() -> None:
    rates = Rates()
    assert rates.per_second(5.0) == (0.0, 0.0)
    rates.ended(5.0)
    assert rates.per_second(5.0) == (0.0, 0.0)


HAPPENED = st.lists(
    st.tuples(st.floats(0, 40), st.sampled_from(["arrived", "ended", "drew"])), max_size=60
)


@given(happened=HAPPENED, later_s=st.floats(0, 90))
def test_rates_are_what_counting_everything_again_gives(
    happened: list[tuple[float, str]], later_s: float
) -> None:
    rates, now_s = Rates(), 3.5
    times: list[tuple[float, str]] = []
    for pause_s, what in happened:
        now_s += pause_s
        times.append((now_s, what))
        if what == "drew":
            rates.drew(3, now_s)
        else:
            getattr(rates, what)(now_s)
    now_s += later_s
    recent = [each for each in times if each[0] >= floor(now_s) - RATE_SECONDS]
    passed_s = now_s - recent[0][0] if recent else 0.0
    counted = [what for _, what in recent]
    expected = (0.0, 0.0)
    if passed_s > 0:
        expected = (counted.count("ended") / passed_s, 3 * counted.count("drew") / passed_s)
    assert rates.per_second(now_s) == expected
    assert passed_s < RATE_SECONDS + 1
    assert len(rates._seconds) <= RATE_SECONDS + 1


# ---- percentiles


def test_percentiles_are_of_the_last_one_to_two_minutes_and_counts_of_all() -> None:
    timings = Timings(0.0)
    for _ in range(10):
        timings.add(9.0, 10.0)
    for _ in range(10):
        timings.add(1.0, TURN_SECONDS + 10.0)
    assert timings.latency(TURN_SECONDS + 10.0).p95_s == pytest.approx(9.0, rel=0.02)
    latency = timings.latency(2 * TURN_SECONDS + 1.0)
    assert latency.p95_s == pytest.approx(1.0, rel=0.02)
    assert (latency.count, latency.sum_s) == (20, 100.0)


@pytest.mark.parametrize("pause_s", [2 * TURN_SECONDS, 1_000.0])
def test_what_is_old_is_forgotten_though_nothing_came_after_it(pause_s: float) -> None:
    timings = Timings(0.0)
    timings.add(9.0, 10.0)
    latency = timings.latency(10.0 + pause_s)
    assert (latency.count, latency.p50_s, latency.p99_s) == (1, None, None)
    timings.add(0.5, 10.0 + pause_s)
    assert timings.latency(10.0 + pause_s).p50_s == pytest.approx(0.5, rel=0.02)


def test_reading_changes_nothing() -> None:
    timings = Timings(0.0)
    timings.add(1.0, 1.0)
    timings.add(2.0, TURN_SECONDS + 1.0)
    assert [timings.latency(TURN_SECONDS + 2.0) for _ in range(3)] == [
        timings.latency(TURN_SECONDS + 2.0)
    ] * 3


# ---- of a scheduler


def test_tokens_of_requests_that_have_not_ended_count_in_the_rate() -> None:
    world = World(executor=FakeExecutor(blocks=400))
    for index in range(4):
        world.submit([index + 1], 100)
    for _ in range(20):
        world.step(seconds=0.5)
    statistics = world.scheduler.statistics()
    assert statistics.requests_per_s == 0
    assert statistics.tokens_per_s == 4 * 20 / 10


def test_what_ended_for_whatever_reason_counts_and_what_was_refused_does_not() -> None:
    world = World(waiting_max=2)
    cancelled = world.submit([1], 9)
    world.submit([2], 9, deadline_s=0.5)
    with pytest.raises(Exception, match="waiting"):
        world.submit([3], 9)
    world.scheduler.cancel(cancelled)
    world.step(seconds=2.0)
    statistics = world.scheduler.statistics()
    assert statistics.requests_ended == {"cancelled": 1, "deadline": 1}
    assert statistics.requests_per_s == 2 / 2.0
    assert statistics.requests_refused == 1

"""When a breaker opens, what it lets through, and when it closes."""

from __future__ import annotations

import pytest

from engine.runtimes.upstream.breaker import Breaker, BreakerLimits
from engine.runtimes.upstream.errors import CircuitOpen, Verdict
from tests.upstream.conftest import Clock

LIMITS = BreakerLimits(outcomes_max=10, failures_min=3, open_seconds=1.0, open_seconds_max=4.0)


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock=clock, limits=LIMITS)


def settle(breaker: Breaker, *verdicts: Verdict) -> None:
    for verdict in verdicts:
        breaker.admit().settle(verdict)


def state(breaker: Breaker) -> str:
    return breaker.state


def opened(breaker: Breaker) -> Breaker:
    settle(breaker, "failed", "failed", "failed")
    assert state(breaker) == "open"
    return breaker


def test_it_opens_after_enough_failures(breaker: Breaker) -> None:
    settle(breaker, "failed", "failed")
    assert state(breaker) == "closed"
    settle(breaker, "failed")
    assert state(breaker) == "open"
    with pytest.raises(CircuitOpen) as refusal:
        breaker.admit()
    assert refusal.value.retry_after_s == pytest.approx(1.0)


def test_a_small_share_of_failures_does_not_open_it(breaker: Breaker) -> None:
    for _ in range(20):
        settle(breaker, "answered", "answered", "failed")
    assert state(breaker) == "closed"


def test_failures_among_answers_open_it_when_they_are_half(breaker: Breaker) -> None:
    for _ in range(3):
        settle(breaker, "answered", "failed")
    assert state(breaker) == "open"


def test_what_says_nothing_counts_for_nothing(breaker: Breaker) -> None:
    settle(breaker, "failed", "failed")
    for _ in range(50):
        settle(breaker, "unknown")
    assert state(breaker) == "closed"
    settle(breaker, "failed")
    assert state(breaker) == "open"


def test_half_open_it_lets_one_probe_at_a_time_through(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 1.0
    assert state(breaker) == "half open"
    probe = breaker.admit()
    with pytest.raises(CircuitOpen):
        breaker.admit()
    probe.settle("unknown")
    breaker.admit()


def test_it_closes_after_enough_probes_were_answered(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 1.0
    settle(breaker, "answered")
    assert state(breaker) == "half open"
    settle(breaker, "answered")
    assert state(breaker) == "closed"
    settle(breaker, "failed", "failed")
    assert state(breaker) == "closed"


def test_each_failed_probe_doubles_the_time_it_is_open(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    waits = []
    for _ in range(4):
        with pytest.raises(CircuitOpen) as refusal:
            breaker.admit()
        assert refusal.value.retry_after_s is not None
        waits.append(refusal.value.retry_after_s)
        clock.now += refusal.value.retry_after_s
        settle(breaker, "failed")
    assert waits == pytest.approx([1.0, 2.0, 4.0, 4.0])


def test_after_it_has_closed_it_opens_for_the_first_time_again(
    breaker: Breaker, clock: Clock
) -> None:
    opened(breaker)
    clock.now += 1.0
    settle(breaker, "failed")
    clock.now += 2.0
    settle(breaker, "answered", "answered")
    opened(breaker)
    clock.now += 1.0
    assert state(breaker) == "half open"


def test_outcomes_from_before_it_opened_do_not_judge_the_probes(
    breaker: Breaker, clock: Clock
) -> None:
    old = [breaker.admit() for _ in range(5)]
    opened(breaker)
    clock.now += 1.0
    probe = breaker.admit()
    old[0].settle("failed")
    old[1].settle("answered")
    old[2].settle("answered")
    old[3].settle("unknown")
    old[4].broke_off()
    assert state(breaker) == "half open"
    with pytest.raises(CircuitOpen):
        breaker.admit()
    probe.settle("answered")
    assert state(breaker) == "half open"


def test_a_permit_counts_once(breaker: Breaker) -> None:
    permit = breaker.admit()
    for _ in range(5):
        permit.settle("failed")
    assert state(breaker) == "closed"


def test_streams_that_begin_and_then_break_open_it_too(breaker: Breaker) -> None:
    for _ in range(3):
        permit = breaker.admit()
        permit.settle("answered")
        permit.broke_off()
    assert state(breaker) == "open"


def test_a_probe_that_breaks_after_it_began_opens_it_again(breaker: Breaker, clock: Clock) -> None:
    opened(breaker)
    clock.now += 1.0
    probe = breaker.admit()
    probe.settle("answered")
    probe.broke_off()
    assert state(breaker) == "open"

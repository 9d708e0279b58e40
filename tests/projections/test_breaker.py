"""The breaker leaves alone what has failed, and tries it one caller at a time."""

from __future__ import annotations

from projections.breaker import FAILURES_MAX, OPEN_SECONDS, Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def opened(clock: Clock) -> Breaker:
    breaker = Breaker(clock=clock)
    for _ in range(FAILURES_MAX):
        assert breaker.admits()
        breaker.failed()
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    assert not opened(Clock()).admits()


def test_a_success_in_between_starts_the_count_anew() -> None:
    breaker = Breaker(clock=Clock())
    for _ in range(FAILURES_MAX):
        breaker.failed()
        breaker.succeeded()
    assert breaker.admits()


def test_when_the_time_is_over_one_caller_tries() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = OPEN_SECONDS
    assert [breaker.admits() for _ in range(5)] == [True, False, False, False, False]


def test_a_trial_that_succeeds_closes_it_and_one_that_fails_does_not() -> None:
    clock = Clock()
    breaker = opened(clock)
    clock.now = OPEN_SECONDS
    assert breaker.admits()
    breaker.failed()
    assert not breaker.admits()
    clock.now = 2 * OPEN_SECONDS
    assert breaker.admits()
    breaker.succeeded()
    assert breaker.admits()

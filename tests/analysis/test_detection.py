"""Simulated rollouts that end: bad candidates are found, good ones need not wait for ever."""

from __future__ import annotations

from statistics import median

import numpy as np
import pytest

from switchback.bench.ramps import WEIGHTS, Ended, detection_s, ramp
from switchback.bench.trials import constant, first_alarms, independent

pytestmark = pytest.mark.slow


def power(harm: float) -> tuple[float, float]:
    """At 10 % share and 2 % failures: found in 10,000 requests, and the median until it is."""
    found = first_alarms(
        independent(
            np.random.default_rng(21),
            runs=300,
            shares=constant(0.1, 100),
            rates=constant(0.02, 100),
            requests=100,
            harm=harm,
        ),
        alpha=0.05,
    )
    until = [(window + 1) * 100 for window in found if window is not None]
    return len(until) / len(found), median(until)


@pytest.mark.parametrize(
    ("harm", "found", "requests"),
    [(1.25, 0.05, 10_000), (1.5, 0.2, 10_000), (2, 0.7, 5_000), (3, 0.98, 2_000), (5, 0.99, 800)],
)
def test_harm_is_found_the_sooner_the_greater_it_is(
    harm: float, found: float, requests: int
) -> None:
    share, until = power(harm)
    assert share >= found
    assert until <= requests


@pytest.mark.parametrize(
    ("bad_rate", "requests_per_s", "seconds"),
    [(0.05, 50, 90), (0.2, 50, 15), (1.0, 50, 5), (0.05, 500, 10), (0.2, 500, 3), (1.0, 500, 1)],
)
def test_a_bad_candidate_with_five_per_cent_of_the_traffic_is_found_in_seconds(
    bad_rate: float, requests_per_s: int, seconds: int
) -> None:
    generator = np.random.default_rng(22)
    found = [
        detection_s(generator, bad_rate=bad_rate, requests_per_s=requests_per_s, seconds_max=600)
        for _ in range(25)
    ]
    assert None not in found
    assert median(one for one in found if one is not None) <= seconds


def test_a_candidate_that_always_fails_is_found_within_15_seconds_of_50_requests() -> None:
    generator = np.random.default_rng(23)
    found = [
        detection_s(generator, bad_rate=1.0, requests_per_s=50, seconds_max=15) for _ in range(200)
    ]
    assert None not in found


def ramps(*, rate: float, harm: float, runs: int) -> list[list[Ended]]:
    generator = np.random.default_rng(24)
    return [
        ramp(generator, rate=rate, harm=harm, requests_per_s=100, step_seconds_max=600)
        for _ in range(runs)
    ]


def test_a_good_candidate_passes_every_step_on_a_few_thousand_requests() -> None:
    ended = ramps(rate=0.02, harm=1.0, runs=25)
    whole = [steps for steps in ended if steps[-1].outcome == "pass"]
    assert len(whole) >= 20
    for number in range(len(WEIGHTS)):
        assert median(steps[number].samples for steps in whole) <= 5_000


def test_one_that_fails_three_times_as_often_passes_no_step() -> None:
    assert all(
        [step.outcome for step in steps] == ["fail"]
        for steps in ramps(rate=0.02, harm=3.0, runs=40)
    )


def test_one_that_fails_twice_as_often_never_gets_all_traffic() -> None:
    for rate in (0.01, 0.02, 0.05):
        for steps in ramps(rate=rate, harm=2.0, runs=10):
            assert steps[-1].outcome == "fail"

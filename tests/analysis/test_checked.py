"""Arms of bad answers among those checked: fair, whatever else the versions differ in."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.analysis.assignment import AssignmentTest
from engine.analysis.checked import CheckedTest, Keys
from switchback.bench.trials import constant, drifting, independent, stepping

ALPHA = 0.05
RUNS, WINDOWS, REQUESTS = 2_000, 60, 30
SHAPES = ((0.5, 0.3), (0.1, 0.3), (0.05, 0.1), (0.1, 0.02))
"""(share of the candidate, rate of bad answers)."""

Counts = NDArray[np.int64]
Window = tuple[int, int, int, int]
"""Checked and bad keys of the baseline, and of the candidate."""

slow = pytest.mark.slow


def evidence(windows: Iterable[Window], *, step: int = 0) -> CheckedTest:
    test = CheckedTest()
    for checked_b, bad_b, checked_c, bad_c in windows:
        test.observe(step, Keys(checked_b, bad_b), Keys(checked_c, bad_c))
    return test


@settings(deadline=None, max_examples=40)
@given(baseline=st.integers(1, 6), candidate=st.integers(1, 5), share_bad=st.floats(0.0, 1.0))
def test_over_all_ways_bad_answers_can_fall_the_evidence_is_1_on_average(
    baseline: int, candidate: int, share_bad: float
) -> None:
    both = baseline + candidate
    bad = round(share_bad * both)
    ways = [sum(one < candidate for one in way) for way in combinations(range(both), bad)]
    found = [evidence([(baseline, bad - fell, candidate, fell)]).e_value for fell in ways]
    assert sum(found) / len(ways) == pytest.approx(1.0, abs=1e-9)


def test_thousands_of_keys_in_a_window_are_no_trouble() -> None:
    assert evidence([(9_000, 4_500, 1_000, 500)]).e_value < 1.0
    assert evidence([(9_000, 4_500, 1_000, 1_000)]).e_value > 1e100


@pytest.mark.parametrize("only", [(50, 50, 0, 0), (0, 0, 50, 50), (0, 0, 0, 0)])
def test_where_one_version_alone_was_checked_there_is_nothing_to_learn(only: Window) -> None:
    assert evidence([only] * 100).e_value == 1.0


def test_what_was_checked_alone_counts_with_the_next_of_the_other_version() -> None:
    apart = evidence([(5, 0, 0, 0), (4, 1, 0, 0), (0, 0, 1, 1)])
    assert apart.e_value == evidence([(9, 1, 1, 1)]).e_value > 1.0


def test_what_was_checked_in_one_step_does_not_wait_for_the_other_version_in_another() -> None:
    test = CheckedTest()
    test.observe(0, Keys(10, 0), Keys())
    test.observe(1, Keys(), Keys(1, 1))
    assert test.e_value == 1.0
    test.observe(1, Keys(9, 0), Keys())
    assert test.e_value == evidence([(9, 0, 1, 1)]).e_value


# ------------------------------------------------------------------------------- simulated rollouts


def alarms(runs: Iterable[Iterable[Window]]) -> float:
    """The share of runs that ever raise an alarm."""
    found = [_is_alarmed(run) for run in runs]
    return sum(found) / len(found)


def _is_alarmed(run: Iterable[Window]) -> bool:
    test = CheckedTest()
    for checked_b, bad_b, checked_c, bad_c in run:
        test.observe(0, Keys(checked_b, bad_b), Keys(checked_c, bad_c))
        if test.e_value >= 1.0 / ALPHA:
            return True
    return False


def alarms_by_share(shares: NDArray[np.float64], runs: Iterable[Iterable[Window]]) -> float:
    """What the candidate's share of the traffic would have made of it."""
    found = []
    for run in runs:
        test = AssignmentTest()
        for share, (_, bad_b, _, bad_c) in zip(shares.tolist(), run, strict=True):
            test.observe(share, in_baseline=bad_b, in_candidate=bad_c)
        found.append(test.peak >= 1.0 / ALPHA)
    return sum(found) / len(found)


def allowed(runs: int = RUNS) -> float:
    """Alpha and three standard errors."""
    return ALPHA + 3.0 * float(np.sqrt(ALPHA * (1.0 - ALPHA) / runs))


def told(*columns: Counts) -> list[list[Window]]:
    """Arrays of runs and windows, as windows of each run."""
    return [
        list(zip(*rows, strict=True)) for rows in zip(*(c.tolist() for c in columns), strict=True)
    ]


def simulated(
    shares: NDArray[np.float64],
    rates: NDArray[np.float64],
    *,
    harm: float = 1.0,
    requests: int = REQUESTS,
    runs: int = RUNS,
) -> tuple[Counts, Counts, Counts, Counts]:
    arms = independent(
        np.random.default_rng(21),
        runs=runs,
        shares=shares,
        rates=rates,
        requests=requests,
        harm=harm,
    )
    return arms.baseline, arms.baseline_failures, arms.candidate, arms.candidate_failures


def delayed(counts: Counts, windows: int) -> Counts:
    """Told so many windows later."""
    late = np.zeros_like(counts)
    late[:, windows:] = counts[:, :-windows]
    return late


@slow
@pytest.mark.parametrize(("share", "rate"), SHAPES)
def test_alarms_are_as_rare_as_promised(share: float, rate: float) -> None:
    runs = told(*simulated(constant(share, WINDOWS), constant(rate, WINDOWS)))
    assert alarms(runs) <= allowed()


@slow
def test_rates_that_drift_while_weights_step_raise_no_more_alarms() -> None:
    runs = told(*simulated(stepping(WINDOWS), drifting(0.05, 0.4, WINDOWS)))
    assert alarms(runs) <= allowed()


@slow
def test_a_baseline_that_answers_later_raises_no_more_alarms_where_shares_of_traffic_do() -> None:
    shares = constant(0.1, WINDOWS)
    checked_b, bad_b, *candidate = simulated(shares, constant(0.3, WINDOWS), requests=50)
    runs = told(delayed(checked_b, 5), delayed(bad_b, 5), *candidate)
    assert alarms(runs) <= allowed()
    assert alarms_by_share(shares, runs) > 2 * allowed()


@slow
def test_a_baseline_that_is_checked_less_raises_no_more_alarms_where_shares_of_traffic_do() -> None:
    generator = np.random.default_rng(22)
    shares = constant(0.3, WINDOWS)
    checked_b, bad_b, *candidate = simulated(shares, constant(0.3, WINDOWS), requests=50)
    bad = generator.binomial(bad_b, 0.6)
    good = generator.binomial(checked_b - bad_b, 0.6)
    runs = told(good + bad, bad, *candidate)
    assert alarms(runs) <= allowed()
    assert alarms_by_share(shares, runs) > 2 * allowed()


@slow
@pytest.mark.parametrize("haste", [1.0, 4.0])
def test_users_of_their_own_raise_no_more_alarms_however_often_each_version_makes_them_come(
    haste: float,
) -> None:
    generator = np.random.default_rng(23)
    runs = [users_run(generator, haste=haste) for _ in range(RUNS // 4)]
    assert alarms([run for run, _ in runs]) <= allowed(RUNS // 4)
    if haste > 1.0:  # what counting every check of a user who was not bad yet would do
        assert alarms([run for _, run in runs]) > 2 * allowed(RUNS // 4)


def users_run(
    generator: np.random.Generator, *, haste: float, users: int = 300
) -> tuple[list[Window], list[Window]]:
    """Users some of whom always find answers bad, and come `haste` times as often to the baseline.

    Counted by the first check of each in a step until one was bad, and by every check until then.
    """
    shares = stepping(WINDOWS)
    bucket = generator.random(users)
    activity = generator.gamma(1.0, 0.05, users)
    finds_bad = generator.random(users) < 0.3
    was_bad = np.zeros(users, dtype=np.bool_)
    once: list[Window] = []
    each: list[Window] = []
    in_step = np.zeros(users, dtype=np.bool_)
    for window, share in enumerate(shares):
        if window and share != shares[window - 1]:
            in_step[:] = False
        candidate = bucket < share
        visits = generator.poisson(activity * np.where(candidate, 1.0, haste))
        comes = (visits > 0) & ~was_bad
        first = comes & ~in_step
        once.append(_counted(first.astype(int), first & finds_bad, candidate))
        each.append(
            _counted(np.where(comes & finds_bad, 1, visits * comes), comes & finds_bad, candidate)
        )
        in_step |= comes
        was_bad |= comes & finds_bad
    return once, each


def _counted(checks: Counts, bad: NDArray[np.bool_], candidate: NDArray[np.bool_]) -> Window:
    return (
        int(checks[~candidate].sum()),
        int(bad[~candidate].sum()),
        int(checks[candidate].sum()),
        int(bad[candidate].sum()),
    )


@slow
@pytest.mark.parametrize(("requests", "windows"), [(30, 60), (1, 1_800)])
def test_twice_as_many_bad_answers_are_found_however_thin_the_traffic(
    requests: int, windows: int
) -> None:
    runs = told(
        *simulated(
            constant(0.1, windows), constant(0.3, windows), harm=2.0, requests=requests, runs=200
        )
    )
    assert alarms(runs) > 0.9

"""Means: what moments say, and intervals that hold for those who watch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.analysis.means import SAMPLES_MIN, Moments, difference

VALUES = st.lists(st.floats(0.1, 1_000.0), min_size=2, max_size=50)


def of(values: NDArray[np.float64] | list[float]) -> Moments:
    array = np.asarray(values)
    total = float(array.sum())
    return Moments(count=len(array), total=total, read=total, squares=float((array**2).sum()))


@settings(deadline=None)
@given(first=VALUES, second=VALUES)
def test_moments_of_two_groups_add_up_to_those_of_both(
    first: list[float], second: list[float]
) -> None:
    both = of(first) + of(second)
    assert both.mean == pytest.approx(np.mean(first + second))
    spread = np.var(first + second) * both.count
    assert both.deviations == pytest.approx(spread, rel=1e-6, abs=1e-3)


def test_nothing_has_no_spread_and_is_no_reason_to_say_anything() -> None:
    assert Moments().mean == Moments().deviations == 0.0
    assert difference(Moments(), of([1.0] * SAMPLES_MIN), alpha=0.05) is None


def test_too_few_samples_of_either_arm_say_nothing() -> None:
    generator = np.random.default_rng(3)
    many, few = of(generator.normal(size=5_000)), of(generator.normal(size=SAMPLES_MIN - 1))
    assert difference(many, few, alpha=0.05) is None
    assert difference(few, many, alpha=0.05) is None


def test_a_difference_of_means_is_found_and_its_size_is_inside() -> None:
    generator = np.random.default_rng(4)
    slow, fast = of(generator.exponential(120.0, 2_000)), of(generator.exponential(100.0, 18_000))
    found = difference(fast, slow, alpha=0.05)
    assert found is not None
    assert 0.0 < found[0] < 20.0 < found[1]
    within = difference(fast, slow, alpha=0.05, ratio=1.5)
    assert within is not None and within[1] < 0.0


def test_a_ratio_is_the_same_as_a_baseline_that_is_so_many_times_slower() -> None:
    generator = np.random.default_rng(8)
    baseline, candidate = generator.exponential(50.0, 900), generator.exponential(120.0, 300)
    by_ratio = difference(of(baseline), of(candidate), alpha=0.05, ratio=3.0)
    by_values = difference(of(3.0 * baseline), of(candidate), alpha=0.05)
    assert by_ratio == pytest.approx(by_values)


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.5, 0.05])
def test_means_that_do_not_differ_rarely_seem_to_at_any_look(share: float) -> None:
    runs, looks, requests = 500, 60, 100
    generator = np.random.default_rng(5)
    wrong = 0
    for _ in range(runs):
        baseline = candidate = Moments()
        for count in generator.binomial(requests, share, looks).tolist():
            baseline += of(generator.exponential(50.0, requests - count))
            candidate += of(generator.exponential(50.0, count))
            found = difference(baseline, candidate, alpha=0.05)
            if found is not None and not found[0] <= 0.0 <= found[1]:
                wrong += 1
                break
    assert wrong / runs <= 0.05 + 3 * (0.05 * 0.95 / runs) ** 0.5

"""Rates: the bounds hold at every look, also while the rate drifts, and are not far too wide."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from engine.analysis.rates import evidence_above, interval, lower_bound, repeats, upper_bound
from switchback.bench.trials import Rates, constant, drifting

ALPHA = 0.05


def exact(failures: int, samples: int) -> tuple[float, float]:
    """Clopper and Pearson's interval, for one look that was fixed beforehand."""
    low = beta.ppf(ALPHA / 2, failures, samples - failures + 1) if failures else 0.0
    high = beta.ppf(1 - ALPHA / 2, failures + 1, samples - failures) if failures < samples else 1.0
    return float(low), float(high)


@settings(deadline=None)
@given(samples=st.integers(1, 200_000), share=st.floats(0, 1))
def test_an_interval_for_every_look_holds_that_for_one_look(samples: int, share: float) -> None:
    failures = round(samples * share)
    low, high = interval(failures, samples, alpha=ALPHA)
    exact_low, exact_high = exact(failures, samples)
    assert 0.0 <= low <= exact_low
    assert exact_high <= high <= 1.0


@pytest.mark.parametrize("samples", [500, 5_000, 50_000, 500_000])
@pytest.mark.parametrize("rate", [0.002, 0.02, 0.2, 0.5, 0.98])
def test_it_is_little_more_than_twice_as_wide_as_that_for_one_look(
    samples: int, rate: float
) -> None:
    failures = round(samples * rate)
    low, high = interval(failures, samples, alpha=ALPHA)
    exact_low, exact_high = exact(failures, samples)
    assert high - low < 2.3 * (exact_high - exact_low)


def test_no_failures_leave_an_upper_bound_and_failures_only_a_lower_one() -> None:
    assert interval(0, 1_000, alpha=ALPHA) == (0.0, pytest.approx(0.00638, abs=1e-5))
    low, high = interval(1_000, 1_000, alpha=ALPHA)
    assert (1.0 - low, high) == (pytest.approx(0.00638, abs=1e-5), 1.0)


def test_a_single_failure_at_a_tiny_alpha_leaves_every_lower_rate_possible() -> None:
    assert interval(1, 10, alpha=1e-6)[0] == 0.0
    assert interval(9, 10, alpha=1e-6)[1] == 1.0


def test_without_samples_every_rate_is_possible() -> None:
    assert interval(0, 0, alpha=ALPHA) == (0.0, 1.0)


@settings(deadline=None)
@given(samples=st.integers(1, 10_000), share=st.floats(0, 1), alpha=st.floats(1e-4, 0.5))
def test_the_rate_of_failures_and_of_successes_are_bounded_alike(
    samples: int, share: float, alpha: float
) -> None:
    failures = round(samples * share)
    upper = upper_bound(failures, samples, alpha=alpha)
    assert upper == pytest.approx(1.0 - lower_bound(samples - failures, samples, alpha=alpha))


@pytest.mark.slow
@pytest.mark.parametrize(
    "rates",
    [constant(0.01, 100), constant(0.2, 100), drifting(0.01, 0.3, 100), drifting(0.2, 0.01, 100)],
    ids=["rare", "common", "growing", "falling"],
)
def test_at_all_looks_together_the_average_rate_so_far_is_rarely_outside(rates: Rates) -> None:
    runs, requests = 400, 20
    generator = np.random.default_rng(1)
    failures = np.cumsum(generator.binomial(requests, rates, (runs, len(rates))), axis=1)
    averages = np.cumsum(rates) / np.arange(1, len(rates) + 1)
    missed = sum(
        any(
            not low <= average <= high
            for look, (failed, average) in enumerate(zip(run, averages, strict=True), start=1)
            for low, high in (interval(failed, look * requests, alpha=ALPHA),)
        )
        for run in failures.tolist()
    )
    assert missed / runs <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5


@pytest.mark.parametrize("limit", [0.001, 0.05, 0.5])
@pytest.mark.parametrize("samples", [1, 10, 40])
def test_at_the_limit_the_evidence_that_it_is_exceeded_is_1_on_average(
    limit: float, samples: int
) -> None:
    mean = sum(
        float(binom.pmf(failures, samples, limit)) * evidence_above(failures, samples, limit=limit)
        for failures in range(samples + 1)
    )
    assert mean == pytest.approx(1.0, rel=1e-6)


def test_below_the_limit_it_is_less_whatever_way_the_rate_drifts() -> None:
    first, then, samples, limit = 0.01, 0.05, 60, 0.05
    mean = sum(
        float(binom.pmf(a, samples, first) * binom.pmf(b, samples, then))
        * evidence_above(a + b, 2 * samples, limit=limit)
        for a in range(samples + 1)
        for b in range(samples + 1)
    )
    assert mean < 1.0


@pytest.mark.slow
@pytest.mark.parametrize("rates", [constant(0.05, 200), np.linspace(0.0, 0.05, 200)])
def test_a_rate_at_its_limit_or_below_rarely_alarms_at_any_look(rates: Rates) -> None:
    runs, requests = 1_000, 20
    generator = np.random.default_rng(2)
    failures = np.cumsum(generator.binomial(requests, rates, (runs, len(rates))), axis=1)
    alarmed = sum(
        any(
            evidence_above(failed, look * requests, limit=0.05) >= 1 / ALPHA
            for look, failed in enumerate(run, start=1)
            if failed > 0.06 * look * requests  # elsewhere there is no evidence
        )
        for run in failures.tolist()
    )
    assert alarmed / runs <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / runs) ** 0.5


def test_a_rate_of_twice_its_limit_alarms_within_a_thousand_samples() -> None:
    assert evidence_above(100, 1_000, limit=0.05) > 1 / ALPHA


def test_a_limit_of_none_at_all_alarms_at_the_first_failure() -> None:
    assert evidence_above(0, 1_000, limit=0.0) == 1.0
    assert evidence_above(3, 1_000, limit=0.0) > 1_000


def test_failures_of_one_key_count_as_few_and_those_of_many_as_many() -> None:
    assert repeats(0, failing_keys=0) == 1.0
    assert repeats(30, failing_keys=30) == 1.0
    assert repeats(30, failing_keys=3) == 10.0
    assert repeats(30, failing_keys=0) == 30.0

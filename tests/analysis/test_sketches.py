"""Sketches: what they were made of can be read from them, within what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from ddsketch import DDSketch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.sketches import count, count_above, merge, moments, quantile
from events.catalogue.traffic import LatencySketch
from tests.analysis.windows import sketch

LATENCIES = st.lists(st.one_of(st.just(0.0), st.floats(0.001, 60_000.0)), min_size=1, max_size=60)
SHARES = (0.0, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0)


@settings(deadline=None)
@given(LATENCIES)
def test_quantiles_are_those_of_the_library(latencies: list[float]) -> None:
    library = DDSketch(0.01)
    for latency in latencies:
        library.add(latency)
    made = sketch(latencies)
    for share in SHARES:
        expected = min(max(library.get_quantile_value(share), made.min_ms), made.max_ms)
        assert quantile(made, share) == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(LATENCIES)
def test_quantiles_are_within_the_accuracy_of_the_latency_of_that_rank(
    latencies: list[float],
) -> None:
    made, ordered = sketch(latencies), sorted(latencies)
    for share in SHARES:
        exact = ordered[int(share * (len(ordered) - 1))]
        assert quantile(made, share) == pytest.approx(exact, rel=0.0101)


@settings(deadline=None)
@given(LATENCIES, LATENCIES)
def test_merged_sketches_are_the_sketch_of_all_latencies(
    first: list[float], second: list[float]
) -> None:
    merged, whole = merge([sketch(first), sketch(second)]), sketch(first + second)
    assert merged is not None
    assert (merged.bins, merged.zeros) == (whole.bins, whole.zeros)
    assert (merged.min_ms, merged.max_ms) == (whole.min_ms, whole.max_ms)
    assert merged.sum_ms == pytest.approx(whole.sum_ms)


def test_merging_nothing_is_nothing() -> None:
    assert merge([]) is None
    assert merge([LatencySketch(relative_accuracy=0.01)]) is None


def test_a_sketch_of_another_accuracy_is_read_within_both() -> None:
    generator = np.random.default_rng(6)
    latencies = generator.lognormal(4.0, 0.5, 4_000).tolist()
    merged = merge([sketch(latencies[:2_000], 0.01), sketch(latencies[2_000:], 0.02)])
    assert merged is not None and count(merged) == 4_000
    for share in (0.5, 0.95):
        assert quantile(merged, share) == pytest.approx(np.quantile(latencies, share), rel=0.035)


def test_an_empty_sketch_has_no_quantiles() -> None:
    with pytest.raises(ValueError, match="empty"):
        quantile(LatencySketch(relative_accuracy=0.01), 0.5)


@settings(deadline=None)
@given(LATENCIES, st.floats(0.01, 60_000.0))
def test_latencies_above_a_limit_are_counted_but_for_those_close_to_it(
    latencies: list[float], limit: float
) -> None:
    plainly = sum(latency > limit * 1.021 for latency in latencies)
    perhaps = sum(latency > limit for latency in latencies)
    assert plainly <= count_above(sketch(latencies), limit) <= perhaps


def test_every_latency_but_none_exceeds_a_limit_of_none() -> None:
    assert count_above(sketch([0.0, 0.5, 3.0]), 0.0) == 2


def test_the_mean_is_exact_and_the_variance_close() -> None:
    generator = np.random.default_rng(7)
    latencies = generator.lognormal(4.0, 0.7, 5_000)
    found = moments(sketch(latencies.tolist()))
    assert found.count == 5_000
    assert found.mean == pytest.approx(latencies.mean())
    assert found.deviations / found.count == pytest.approx(latencies.var(), rel=0.03)


def test_latencies_closer_together_than_a_bin_still_have_a_spread() -> None:
    latencies = [100.0 + 0.01 * number for number in range(50)]
    found = moments(sketch(latencies))
    assert found.deviations / found.count >= np.var(latencies)

"""The arms of failures: fair while there is no difference, quick when there is one."""

from __future__ import annotations

from itertools import product
from math import prod

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.analysis.assignment import (
    HARM_ODDS,
    MISMATCH_ODDS,
    AssignmentTest,
    GatewayTests,
    log_mean_exp,
)

SHARES = st.floats(0.01, 0.99)


def after(shares: list[float], arms: tuple[int, ...], odds: tuple[float, ...]) -> AssignmentTest:
    """The test when each failure fell in the arm that is said, 1 the candidate's."""
    test = AssignmentTest(odds=odds)
    for share, arm in zip(shares, arms, strict=True):
        test.observe(share, in_baseline=1 - arm, in_candidate=arm)
    return test


@pytest.mark.parametrize("odds", [HARM_ODDS, MISMATCH_ODDS], ids=["harm", "mismatch"])
@settings(deadline=None)
@given(shares=st.lists(SHARES, min_size=1, max_size=7))
def test_over_all_ways_failures_can_fall_the_evidence_is_1_on_average(
    odds: tuple[float, ...], shares: list[float]
) -> None:
    mean = sum(
        prod(share if arm else 1 - share for share, arm in zip(shares, arms, strict=True))
        * after(shares, arms, odds).e_value
        for arms in product((0, 1), repeat=len(shares))
    )
    assert mean == pytest.approx(1.0, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(shares=st.lists(SHARES, min_size=8, max_size=8))
def test_over_all_ways_failures_can_fall_an_alarm_at_4_is_raised_in_a_quarter_at_most(
    shares: list[float],
) -> None:
    ways = product((0, 1), repeat=len(shares))
    alarmed = sum(
        prod(share if arm else 1 - share for share, arm in zip(shares, arms, strict=True))
        for arms in ways
        if after(shares, arms, HARM_ODDS).peak >= 4.0
    )
    assert alarmed <= 0.25


@settings(deadline=None)
@given(share=SHARES, baseline=st.integers(0, 50), candidate=st.integers(0, 50))
def test_the_evidence_is_the_mean_of_likelihood_ratios(
    share: float, baseline: int, candidate: int
) -> None:
    def ratio(odds: float) -> float:
        harmful = share * odds / (1 - share + share * odds)
        return (harmful / share) ** candidate * ((1 - harmful) / (1 - share)) ** baseline

    test = AssignmentTest()
    test.observe(share, in_baseline=baseline, in_candidate=candidate)
    expected = sum(ratio(odds) for odds in HARM_ODDS) / len(HARM_ODDS)
    assert test.e_value == pytest.approx(expected, rel=1e-9)


@settings(deadline=None)
@given(st.lists(st.tuples(SHARES, st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_failures_count_the_same_together_or_one_by_one_in_any_order(
    batches: list[tuple[float, int, int]],
) -> None:
    together, apart = AssignmentTest(), AssignmentTest()
    for share, baseline, candidate in batches:
        together.observe(share, in_baseline=baseline, in_candidate=candidate)
    for share, baseline, candidate in reversed(batches):
        for _ in range(baseline):
            apart.observe(share, in_baseline=1, in_candidate=0)
        for _ in range(candidate):
            apart.observe(share, in_baseline=0, in_candidate=1)
    assert apart.e_value == pytest.approx(together.e_value, rel=1e-9)


@settings(deadline=None)
@given(st.lists(st.tuples(SHARES, st.integers(0, 5), st.integers(0, 5)), max_size=8))
def test_what_two_gateways_both_counted_is_no_more_evidence_than_what_one_did(
    batches: list[tuple[float, int, int]],
) -> None:
    alone, both = GatewayTests(), GatewayTests()
    for share, baseline, candidate in batches:
        alone.observe("g1", share, in_baseline=baseline, in_candidate=candidate)
        for gateway in ("g1", "g2"):
            both.observe(gateway, share, in_baseline=baseline, in_candidate=candidate)
    assert both.e_value == pytest.approx(alone.e_value)


def test_harm_at_one_of_many_gateways_is_found() -> None:
    test = GatewayTests()
    assert test.e_value == test.peak == 1.0
    for gateway in range(10):
        test.observe(f"g{gateway}", 0.1, in_baseline=1, in_candidate=0)
    test.observe("g3", 0.1, in_baseline=0, in_candidate=10)
    assert test.peak == test.e_value > 1_000


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_where_only_one_version_takes_traffic_its_failures_say_nothing(share: float) -> None:
    test = AssignmentTest()
    test.observe(share, in_baseline=100, in_candidate=100)
    assert test.e_value == test.peak == 1.0


def test_an_alarm_stays_when_evidence_against_it_follows() -> None:
    test = AssignmentTest()
    test.observe(0.1, in_baseline=0, in_candidate=5)
    alarmed = test.e_value
    test.observe(0.1, in_baseline=500, in_candidate=5)
    assert test.e_value < 1 < alarmed == test.peak


def test_a_candidate_that_fails_less_often_raises_no_alarm() -> None:
    test = AssignmentTest()
    test.observe(0.5, in_baseline=1_000, in_candidate=10)
    assert test.peak == 1.0


@pytest.mark.parametrize("candidate", [30, 170])
def test_too_few_and_too_many_keys_are_both_a_mismatch(candidate: int) -> None:
    test = AssignmentTest(odds=MISMATCH_ODDS)
    test.observe(0.1, in_baseline=1_000 - candidate, in_candidate=candidate)
    assert test.e_value > 1_000


def test_overwhelming_evidence_is_still_a_number_in_json() -> None:
    test = AssignmentTest()
    test.observe(0.01, in_baseline=0, in_candidate=1_000_000)
    assert msgspec.json.decode(msgspec.json.encode(test.e_value)) == test.e_value > 1e200


def test_a_mean_of_huge_and_tiny_numbers_is_taken_from_their_logarithms() -> None:
    assert log_mean_exp([2_000.0, -2_000.0]) == pytest.approx(2_000.0 - 0.693147, abs=1e-6)
    assert log_mean_exp([-2_000.0, -2_000.0]) == -2_000.0

"""When outputs agree: exactly, within a tolerance, as texts, or as a function says."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.agreement import CHARS_MAX, DEPTH_MAX, VALUES_MAX, ComparisonFailed, agree
from events.catalogue.endpoints import Comparison

EXACT = Comparison()
KINDS = (EXACT, Comparison(kind="numeric", tolerance=0.1), Comparison(kind="text", similarity=0.8))
NAN, INF = math.nan, math.inf

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(min_value=-(2**63), max_value=2**64 - 1)
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


def numeric(tolerance: float) -> Comparison:
    return Comparison(kind="numeric", tolerance=tolerance)


def text(similarity: float) -> Comparison:
    return Comparison(kind="text", similarity=similarity)


def agrees(one: Any, other: Any, comparison: Comparison = EXACT) -> bool:
    said = agree(one, other, comparison, {})
    assert agree(other, one, comparison, {}) == said, "whoever was asked first"
    return said


@settings(deadline=None)
@given(value=values, comparison=st.sampled_from(KINDS))
def test_whatever_it_is_it_agrees_with_itself(value, comparison):
    copy = msgspec.msgpack.decode(msgspec.msgpack.encode(value))
    assert agrees(value, copy, comparison)


@settings(deadline=None)
@given(one=values, other=values, comparison=st.sampled_from(KINDS))
def test_who_agrees_exactly_agrees_in_every_way_and_both_ways(one, other, comparison):
    assert not agrees(one, other) or agrees(one, other, comparison)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0),
        (0.0, -0.0),
        (NAN, NAN),
        ({"a": 1, "b": NAN}, {"b": NAN, "a": 1.0}),
        ((1, 2), [1, 2.0]),
        (b"\0", b"\0"),
        ([], []),
        (None, None),
    ],
)
def test_what_agrees_exactly(one, other):
    assert agrees(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, 1),
        (False, 0.0),
        (True, False),
        (None, 0),
        (None, ""),
        ("1", 1),
        ("a", b"a"),
        (1, 1.0000001),
        (2**53 + 1, float(2**53)),
        (NAN, 0.0),
        (INF, -INF),
        ([1, 2], [2, 1]),
        ([1], [1, 1]),
        ([], {}),
        ({"a": 1}, {"a": 1, "b": None}),
        ({"a": 1}, {"b": 1}),
        ({"a": {"b": [1, "x"]}}, {"a": {"b": [1, "y"]}}),
    ],
)
def test_what_disagrees_exactly(one, other):
    assert not agrees(one, other)


@pytest.mark.parametrize(
    ("one", "other", "tolerance", "said"),
    [
        (100.0, 101.0, 0.01, True),
        (100.0, 101.1, 0.01, False),
        (1e9, 1e9 + 1e6, 0.01, True),
        (0.0, 0.01, 0.01, True),
        (0.0, 0.011, 0.01, False),
        (0.5, 0.51, 0.011, True),
        (1e-9, 2e-9, 0.01, True),
        (-100, 100, 1.0, False),
        (-100.0, 100.0, 2.0, True),
        (INF, INF, 0.5, True),
        (INF, 1e308, 0.5, False),
        (INF, -INF, 5.0, False),
        (1e308, -1e308, 1.0, False),
        (NAN, NAN, 0.0, True),
        (NAN, 1.0, 9.0, False),
        (3, 3.2, 0.1, True),
        (True, 1.0, 0.5, False),
        ("1.0", "1.01", 0.5, False),
        ([1.0, 2.0], [1.05, 2.1], 0.06, True),
        ([1.0, 2.0], [1.05, 2.3], 0.06, False),
        ({"a": [1.0, "x"]}, {"a": [1.01, "x"]}, 0.02, True),
        ({"a": [1.0, "x"]}, {"a": [1.01, "y"]}, 0.02, False),
    ],
)
def test_numbers_agree_within_a_tolerance_relative_to_the_larger_and_absolute_below_one(
    one, other, tolerance, said
):
    assert agrees(one, other, numeric(tolerance)) == said


@pytest.mark.parametrize(
    ("one", "other", "similarity", "said"),
    [
        ("the cat sat", "the cat sat", 1.0, True),
        ("the cat sat", "the cat sit", 1.0, False),
        ("abcdefghij", "abcdefghix", 0.9, True),  # one out and one in, of twenty characters
        ("abcdefghij", "abcdefghix", 0.91, False),
        ("abc", "xyz", 0.0, True),
        ("", "", 0.5, True),
        ("", "x", 0.5, False),
        ({"a": "abcdefghij", "n": 1}, {"a": "abcdefghix", "n": 1.0}, 0.9, True),
        ({"a": "abcdefghij", "n": 1}, {"a": "abcdefghix", "n": 1.1}, 0.9, False),
        (["abcdefghij", "x"], ["abcdefghix", "y"], 0.9, False),
        ({"abcdefghij": 1}, {"abcdefghix": 1}, 0.9, False),
        (b"abcdefghij", b"abcdefghix", 0.9, False),
    ],
)
def test_texts_agree_when_they_are_alike_enough(one, other, similarity, said):
    assert agrees(one, other, text(similarity)) == said


def nested(levels: int) -> Any:
    inner: Any = 0
    for _ in range(levels):
        inner = [inner]
    return inner


# Beside a number, in a list: that makes three values more, and a level.
@pytest.mark.parametrize(
    ("fits", "is_too_large"),
    [
        ([0.0] * (VALUES_MAX - 3), [0.0] * (VALUES_MAX - 2)),
        (dict.fromkeys(map(str, range(2_498)), 0), dict.fromkeys(map(str, range(2_499)), 0)),
        ("a" * CHARS_MAX, "a" * (CHARS_MAX + 1)),
        (b"a" * CHARS_MAX, b"a" * (CHARS_MAX + 1)),
        (["a" * (CHARS_MAX // 2)] * 2, ["a" * (CHARS_MAX // 2 + 1)] * 2),
        (nested(DEPTH_MAX - 1), nested(DEPTH_MAX)),
    ],
    ids=["numbers", "keys", "characters", "bytes", "texts", "levels"],
)
def test_what_is_too_large_is_compared_as_bytes(fits, is_too_large):
    for comparison in KINDS:
        assert agrees([fits, 1], [fits, 1.0], comparison)
        assert not agrees([is_too_large, 1], [is_too_large, 1.0], comparison)
        assert agrees([is_too_large, 1], [is_too_large, 1], comparison)


def test_the_order_of_keys_is_nothing_in_large_outputs_either():
    keys = [str(number) for number in range(VALUES_MAX)]
    assert agrees(dict.fromkeys(keys, 0), dict.fromkeys(reversed(keys), 0))


@pytest.mark.parametrize("output", ["\ud800", object(), 2**70, {"a": {1, object()}}])
def test_outputs_that_cannot_be_encoded_cannot_be_compared(output):
    with pytest.raises(ComparisonFailed, match="cannot be encoded"):
        agree(output, output, EXACT, {})


def by_function(name: str | None = "mine") -> Comparison:
    return Comparison(kind="function", name=name)


@pytest.mark.parametrize("said", [True, False])
def test_a_function_gets_both_outputs_in_order_and_says(said):
    asked: list[Any] = []

    def mine(primary: Any, shadow: Any) -> bool:
        asked.append((primary, shadow))
        return said

    assert agree(1, 2, by_function(), {"mine": mine, "other": lambda *_: not said}) == said
    assert asked == [(1, 2)]


@pytest.mark.parametrize("name", ["other", None])
def test_a_function_that_is_not_known_cannot_be_asked(name):
    with pytest.raises(ComparisonFailed, match="no function"):
        agree(1, 1, by_function(name), {"mine": lambda *_: True})


@pytest.mark.parametrize("returned", [1, 0, None, "yes", math.nan])
def test_a_function_must_return_a_bool(returned):
    with pytest.raises(ComparisonFailed, match=r"mine returned \w+, not a bool"):
        agree(1, 1, by_function(), {"mine": lambda *_: returned})


def test_a_function_that_raises_says_nothing():
    def mine(primary: Any, shadow: Any) -> bool:
        return bool(primary["missing"])

    with pytest.raises(ComparisonFailed, match="mine raised KeyError: 'missing'"):
        agree({}, {}, by_function(), {"mine": mine})

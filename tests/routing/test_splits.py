"""Versions in proportion to their weights, and which keys a change of weights may move."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare

from engine.routing import PolicyInvalid, decide_route
from tests.routing.policies import KEYS, table, version_of

VERSIONS = ["1.0.0", "1.1.0", "2.0.0", "2.0.0-rc.1", "10.0.0"]
SOME_KEYS = KEYS[:1_000]

weights = st.dictionaries(
    st.sampled_from(VERSIONS), st.floats(0.001, 1000), min_size=2, max_size=len(VERSIONS)
)


def assigned(split: dict[str, float], keys: list[str] = SOME_KEYS) -> dict[str, str]:
    compiled = table(split=split)
    return {key: version_of(compiled, key) for key in keys}


@pytest.mark.parametrize(
    "split",
    [
        {"1.0.0": 90, "2.0.0": 10},
        {"1.0.0": 50, "2.0.0": 50},
        {"1.0.0": 99, "2.0.0": 1},
        {"1.0.0": 0.2, "2.0.0": 0.3, "3.0.0": 0.5},
        {"a": 5, "b": 10, "c": 15, "d": 20, "e": 50},
    ],
)
def test_versions_get_keys_in_proportion_to_their_weights(split: dict[str, float]) -> None:
    counts = Counter(assigned(split, KEYS).values())
    expected = [len(KEYS) * weight / sum(split.values()) for weight in split.values()]
    assert chisquare([counts[version] for version in split], expected).pvalue > 0.001


def test_the_chi_square_oracle_notices_a_split_that_is_one_percent_off() -> None:
    counts = Counter(assigned({"1.0.0": 90, "2.0.0": 10}, KEYS).values())
    wrong = [len(KEYS) * 0.89, len(KEYS) * 0.11]
    assert chisquare([counts["1.0.0"], counts["2.0.0"]], wrong).pvalue < 0.001


def test_weights_are_normalised() -> None:
    assert assigned({"a": 0.09, "b": 0.01}) == assigned({"a": 90, "b": 10})


def test_the_order_of_writing_does_not_matter() -> None:
    assert assigned({"a": 1, "b": 2, "c": 3}) == assigned({"c": 3, "a": 1, "b": 2})


@given(weights)
def test_a_version_of_weight_zero_is_never_chosen(split: dict[str, float]) -> None:
    zero = min(split)
    assert zero not in assigned(split | {zero: 0.0}, SOME_KEYS[:200]).values()


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.permutations(["1.9.0", "1.10.0"]))
def test_of_two_versions_the_growing_one_loses_no_key(
    one: float, other: float, names: list[str]
) -> None:
    before, after = sorted([one, other])
    growing, shrinking = names
    had = assigned({growing: before, shrinking: 1 - before})
    has = assigned({growing: after, shrinking: 1 - after})
    assert all(has[key] == growing for key in had if had[key] == growing)


def test_a_canary_keeps_every_user_through_all_its_steps() -> None:
    in_canary: set[str] = set()
    for percent in (5, 10, 25, 50, 100):
        split = {"1.0.0": 100 - percent, "2.0.0": percent}
        now = {key for key, version in assigned(split, KEYS).items() if version == "2.0.0"}
        assert in_canary < now
        in_canary = now


@given(weights, weights)
@settings(max_examples=50)
def test_a_key_moves_only_to_a_version_that_grew_by_a_larger_factor(
    before: dict[str, float], after: dict[str, float]
) -> None:
    had, has = assigned(before), assigned(after)
    for key in SOME_KEYS:
        old, new = had[key], has[key]
        if old != new and old in after and new in before:
            assert after[new] / before[new] > after[old] / before[old]


@given(weights, st.sampled_from(VERSIONS))
@settings(max_examples=50)
def test_removing_a_version_moves_only_its_own_keys(split: dict[str, float], gone: str) -> None:
    had = assigned(split)
    has = assigned({v: w for v, w in split.items() if v != gone} or split)
    assert all(has[key] == had[key] for key in SOME_KEYS if had[key] != gone)


@given(weights, st.floats(0.001, 1000))
@settings(max_examples=50)
def test_weight_added_for_a_new_version_moves_keys_only_to_it(
    split: dict[str, float], weight: float
) -> None:
    had, has = assigned(split), assigned(split | {"new": weight})
    assert all(has[key] in (had[key], "new") for key in SOME_KEYS)


def test_endpoints_split_their_keys_independently() -> None:
    one = table(split={"a": 50, "b": 50})
    other = table(split={"c": 50, "d": 50})
    pairs = Counter((version_of(one, key), version_of(other, key)) for key in KEYS)
    rows = [[pairs[a, c] for c in ("c", "d")] for a in ("a", "b")]
    assert chi2_contingency(rows).pvalue > 0.001


# ------------------------------------------------------------------------------------ Shadows


def shadowed(fraction: float, split: dict[str, float] | None = None) -> set[str]:
    compiled = table(split=split or {"1": 1}, shadow=[{"version": "3", "fraction": fraction}])
    return {key for key in KEYS if decide_route(compiled, key, 0, {}).shadow}


def test_a_shadow_gets_its_fraction_and_a_larger_fraction_only_adds() -> None:
    few, more, most = shadowed(0.1), shadowed(0.3), shadowed(1.0)
    expected = [len(KEYS) * 0.1, len(KEYS) * 0.9]
    assert chisquare([len(few), len(KEYS) - len(few)], expected).pvalue > 0.001
    assert few < more < most == set(KEYS)
    assert shadowed(0.0) == set()


def test_who_is_shadowed_does_not_depend_on_who_serves() -> None:
    compiled = table(split={"1": 50, "2": 50}, shadow=[{"version": "3", "fraction": 0.5}])
    decisions = [decide_route(compiled, key, 0, {}) for key in KEYS]
    pairs = Counter((decision.version, bool(decision.shadow)) for decision in decisions)
    rows = [[pairs[version, copied] for copied in (True, False)] for version in ("1", "2")]
    assert chi2_contingency(rows).pvalue > 0.001


def test_who_is_shadowed_does_not_tell_who_the_version_will_serve() -> None:
    rehearsal = table(split={"1": 1}, shadow=[{"version": "2", "fraction": 0.5}])
    canary = table(split={"1": 50, "2": 50})
    pairs = Counter(
        (bool(decide_route(rehearsal, key, 0, {}).shadow), version_of(canary, key)) for key in KEYS
    )
    rows = [[pairs[copied, version] for version in ("1", "2")] for copied in (True, False)]
    assert chi2_contingency(rows).pvalue > 0.001


def test_a_version_is_not_its_own_shadow() -> None:
    compiled = table(split={"1": 50, "2": 50}, shadow=[{"version": "2"}, {"version": "3"}])
    for key in SOME_KEYS:
        decision = decide_route(compiled, key, 0, {})
        assert decision.shadow == (("2", "3") if decision.version == "1" else ("3",))


# ------------------------------------------------------------------------------------ Nonsense


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"split": {}}, "split"),
        ({"split": {"1": 0}}, "split"),
        ({"split": {"1": -1, "2": 5}}, "split.1"),
        ({"split": {"1": float("nan")}}, "split.1"),
        ({"split": {"1": float("inf"), "2": 1}}, "split.1"),
        ({"split": {"1": 1e308, "2": 1e308}}, "split"),
        ({"split": {"1": 5e-324, "2": 1}}, "split.1"),
        ({"split": {"1": 1}, "shadow": [{"version": "2", "fraction": 1.5}]}, "shadow[0].fraction"),
        ({"split": {"1": 1}, "shadow": [{"version": "2"}, {"version": "2"}]}, "shadow[1]"),
        ({"split": {"1": 1}, "rules": [{"name": "r", "when": {}, "split": {}}]}, "rules[0].split"),
    ],
)
def test_nonsense_is_named(members: dict[str, object], field: str) -> None:
    with pytest.raises(PolicyInvalid) as caught:
        table(**members)
    assert caught.value.field == field

"""Explaining: the table of the time makes the decision again."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.routing import (
    Decision,
    KeyNotUsed,
    Receipt,
    Table,
    compile_policy,
    decide_route,
    explain_key,
    explain_receipt,
    receipt_for,
)
from tests.routing.policies import KEYS, SALT, local_ms, policy, table

NOON, NIGHT = local_ms("UTC", "2027-06-01T12:00"), local_ms("UTC", "2027-06-01T01:00")
MEMBERS: dict[str, Any] = {
    "split": {"1": 60, "2": 40},
    "rules": [
        {"name": "beta at noon", "when": {"from": "11:00", "to": "13:00",
         "attributes": {"tier": "beta"}}, "split": {"3": 50, "4": 50}},
        {"name": "day", "when": {"from": "09:00", "to": "17:00"}, "split": {"5": 50, "6": 50}},
    ],
    "shadow": [{"version": "7", "fraction": 0.5}],
}  # fmt: skip


def receipt(decision: Decision, now_ms: int, *, answered_by: str | None = None) -> Receipt:
    return receipt_for(
        decision,
        tenant="acme",
        endpoint="chat",
        now_ms=now_ms,
        request_id="r-1",
        answered_by=answered_by,
    )


@given(
    key=st.text(max_size=20),
    now_ms=st.integers(NIGHT, NIGHT + 86_400_000),
    attributes=st.sampled_from([{}, {"tier": "beta"}, {"tier": "free"}]),
)
def test_every_receipt_is_explained_by_a_table_compiled_anew(
    key: str, now_ms: int, attributes: dict[str, str]
) -> None:
    decision = decide_route(table(**MEMBERS), key, now_ms, attributes)
    explained = explain_receipt(table(**MEMBERS), receipt(decision, now_ms))
    assert explained.valid
    assert explained.decision == decision


@pytest.mark.parametrize(
    "change",
    [
        {"version": "2"},
        {"bucket": 2**32 + 5},
        {"bucket": -1},
        {"rule": None},
        {"rule": "no such rule"},
        {"rule": "day"},
        {"position": 8},
        {"tenant": "other"},
        {"endpoint": "other"},
        {"time_ms": NIGHT},
    ],
)
def test_a_receipt_that_tells_something_else_is_not_valid(change: dict[str, Any]) -> None:
    compiled = table(**MEMBERS)
    key = next(k for k in KEYS if decide_route(compiled, k, NOON, {"tier": "beta"}).version == "3")
    told = receipt(decide_route(compiled, key, NOON, {"tier": "beta"}), NOON)
    assert explain_receipt(compiled, told).valid
    assert not explain_receipt(compiled, replace(told, **change)).valid


FALLBACKS = {**MEMBERS, "fallback": ["1", "8"]}


@given(
    key=st.text(max_size=20),
    fallback=st.lists(st.sampled_from("12348"), max_size=4, unique=True),
    answered_by=st.sampled_from("123489"),
)
def test_a_receipt_is_valid_if_the_chosen_version_or_one_of_the_fallbacks_answered(
    key: str, fallback: list[str], answered_by: str
) -> None:
    compiled = table(**{**MEMBERS, "fallback": fallback})
    decision = decide_route(compiled, key, NOON, {"tier": "beta"})
    told = receipt(decision, NOON, answered_by=answered_by)
    explained = explain_receipt(compiled, told)
    assert explained.decision == decision
    assert explained.valid is (answered_by == decision.version or answered_by in fallback)
    assert explained.answered_by == (answered_by if explained.valid else decision.version)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "4"},
        {"version": "2"},
        {"version": "3"},
        {"version": "3", "instead_of": "8"},
        {"version": "8", "instead_of": None},
        {"instead_of": "4"},
        {"instead_of": "1"},
        {"instead_of": "8"},
        {"instead_of": ""},
        {"bucket": -1},
        {"position": 8},
        {"rule": None},
    ],
)
def test_a_fallback_that_did_not_stand_in_for_the_chosen_version_is_not_valid(
    change: dict[str, Any],
) -> None:
    compiled = table(**FALLBACKS)
    key = next(k for k in KEYS if decide_route(compiled, k, NOON, {"tier": "beta"}).version == "3")
    decision = decide_route(compiled, key, NOON, {"tier": "beta"})
    told = receipt(decision, NOON, answered_by="8")
    assert explain_receipt(compiled, told).valid
    explained = explain_receipt(compiled, replace(told, **change))
    assert not explained.valid
    assert explained.answered_by == explained.decision.version


def test_no_version_stands_in_for_itself() -> None:
    compiled = table(split={"1": 1}, fallback=["1", "2"])
    told = receipt(decide_route(compiled, "k", NOON, {}), NOON)
    assert explain_receipt(compiled, told).valid
    assert not explain_receipt(compiled, replace(told, instead_of="1")).valid


def test_fallbacks_of_another_policy_prove_nothing() -> None:
    decision = decide_route(table(**FALLBACKS), "k", NOON, {})
    told = receipt(decision, NOON, answered_by="8")
    assert explain_receipt(table(**FALLBACKS), told).valid
    assert not explain_receipt(table(**MEMBERS), told).valid


def test_a_bucket_of_another_version_is_not_valid() -> None:
    compiled = table(split={"1": 1, "2": 1})
    told = {d.version: d for d in (decide_route(compiled, key, NOON, {}) for key in KEYS[:50])}
    mixed = replace(receipt(told["1"], NOON), bucket=told["2"].bucket)
    assert not explain_receipt(compiled, mixed).valid


def test_a_receipt_of_an_earlier_policy_is_not_explained_by_a_later_one() -> None:
    told = receipt(decide_route(table(split={"1": 1}), "k", NOON, {}), NOON)
    later = compile_policy(policy(split={"2": 1}), salt=SALT, position=8)
    assert not explain_receipt(later, told).valid


def test_a_key_is_explained_at_a_time() -> None:
    compiled = table(**MEMBERS)
    assert explain_key(compiled, "k", NOON, {"tier": "beta"}).rule == "beta at noon"
    assert explain_key(compiled, "k", NOON, {}).rule == "day"
    assert explain_key(compiled, "k", NIGHT, {}).rule is None


def loose(**split: float) -> Table:
    return table(split=split, sticky=False)


def test_no_key_explains_a_policy_that_is_not_sticky() -> None:
    with pytest.raises(KeyNotUsed) as caught:
        explain_key(loose(a=1, b=1), "k", NOON, {})
    assert caught.value.versions == ("a", "b")


def test_where_all_traffic_goes_to_one_version_no_key_is_needed() -> None:
    assert explain_key(loose(a=1, b=0), "k", NOON, {}).version == "a"

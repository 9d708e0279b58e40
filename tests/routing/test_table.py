"""Keys, buckets, and that a decision is the same everywhere."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.routing import (
    BUCKETS,
    Decision,
    PolicyInvalid,
    Table,
    bucket_of,
    compile_policy,
    decide_route,
    fallbacks,
    routing_key,
)
from tests.routing.policies import KEYS, SALT, policy, table

GOLDEN_SPLIT = {"1.0.0": 60, "2.0.0": 30, "3.0.0": 10}
GOLDEN: dict[str, tuple[int, str, tuple[str, ...]]] = {
    "": (2401768905, "1.0.0", ("4.0.0",)),
    "user-1": (3166197937, "3.0.0", ("4.0.0",)),
    "user-2": (3980181171, "1.0.0", ("4.0.0",)),
    "user-3": (4041402656, "1.0.0", ()),
    "user-7": (3899308463, "1.0.0", ()),
    "user-15": (3843982476, "1.0.0", ("4.0.0",)),
    "Ελένη": (1829772986, "2.0.0", ("4.0.0",)),
    "0198d1c2-7a54-7b1e-8f3a-0123456789ab": (3776766153, "2.0.0", ("4.0.0",)),
}


def test_a_key_keeps_its_bucket_under_every_policy_of_the_endpoint() -> None:
    one = table(split={"1": 1})
    other = compile_policy(policy(split={"2": 1, "3": 4}), salt=SALT, position=99)
    assert [bucket_of(one, key) for key in KEYS] == [bucket_of(other, key) for key in KEYS]


def test_endpoints_have_buckets_of_their_own() -> None:
    one = compile_policy(policy(split={"1": 1}), salt="acme/chat", position=1)
    other = compile_policy(policy(split={"1": 1}), salt="acme/search", position=1)
    assert all(bucket_of(one, key) != bucket_of(other, key) for key in KEYS[:100])


def test_a_decision_tells_its_bucket_and_position() -> None:
    compiled = table(split={"1": 1, "2": 1})
    decision = decide_route(compiled, "someone", 0, {})
    assert decision.bucket == bucket_of(compiled, "someone")
    assert decision.position == 7
    assert decision.rule is None


@given(st.text())
def test_any_text_is_a_key(key: str) -> None:
    compiled = table(split={"1": 1, "2": 1})
    assert 0 <= decide_route(compiled, key, 0, {}).bucket < BUCKETS


def test_a_lone_surrogate_is_a_key_too() -> None:
    compiled = table(split={"1": 1, "2": 1})
    assert bucket_of(compiled, "\ud800") != bucket_of(compiled, "\ud801")


def test_a_sticky_policy_decides_by_the_key_and_another_by_the_request() -> None:
    sticky, loose = table(split={"1": 1}), table(split={"1": 1}, sticky=False)
    assert routing_key(sticky, "user", "request") == "user"
    assert routing_key(sticky, None, "request") == "request"
    assert routing_key(sticky, "", "request") == "request"
    assert routing_key(loose, "user", "request") == "request"


def test_decisions_are_those_recorded_here() -> None:
    """Should this fail, receipts that were given out no longer verify: do not change the values."""
    compiled = table(split=GOLDEN_SPLIT, shadow=[{"version": "4.0.0", "fraction": 0.5}])
    decisions = {key: decide_route(compiled, key, 0, {}) for key in GOLDEN}
    assert {key: (d.bucket, d.version, d.shadow) for key, d in decisions.items()} == GOLDEN


def test_another_process_decides_the_same() -> None:
    script = """
import json, sys
from tests.routing.policies import KEYS, table
from engine.routing import decide_route
compiled = table(split={"1": 5, "2": 3, "3": 2}, shadow=[{"version": "4", "fraction": 0.5}])
decisions = [decide_route(compiled, key, 0, {}) for key in KEYS[:500]]
json.dump([[d.version, d.bucket, list(d.shadow)] for d in decisions], sys.stdout)
"""
    theirs = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, check=True, text=True
    )
    compiled = table(split={"1": 5, "2": 3, "3": 2}, shadow=[{"version": "4", "fraction": 0.5}])
    ours = [decide_route(compiled, key, 0, {}) for key in KEYS[:500]]
    assert json.loads(theirs.stdout) == [[d.version, d.bucket, list(d.shadow)] for d in ours]


def test_fallbacks_are_asked_in_the_order_of_the_policy_and_never_the_chosen_version() -> None:
    compiled = table(split={"1": 1, "2": 1}, fallback=["3", "2", "1"])
    asked = {d.version: fallbacks(compiled, d) for d in decisions(compiled)}
    assert asked == {"1": ("3", "2"), "2": ("3", "1")}


def test_without_fallbacks_nobody_else_is_asked() -> None:
    compiled = table(split={"1": 1})
    assert [fallbacks(compiled, decision) for decision in decisions(compiled)[:1]] == [()]


def test_fallbacks_change_no_decision() -> None:
    plain, backed = table(split=GOLDEN_SPLIT), table(split=GOLDEN_SPLIT, fallback=["9", "1.0.0"])
    assert decisions(plain) == decisions(backed)


def test_a_fallback_named_twice_cannot_be_compiled() -> None:
    with pytest.raises(PolicyInvalid) as caught:
        table(split={"1": 1}, fallback=["2", "3", "2"])
    assert caught.value.field == "fallback[2]"


def decisions(compiled: Table) -> list[Decision]:
    return [decide_route(compiled, key, 0, {}) for key in KEYS[:200]]

"""What a policy says, and every way in which one can be wrong."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import msgspec
import pytest
from hypothesis import given as over
from hypothesis import strategies as st

from engine.decisions.policy import (
    ATTRIBUTES_MAX,
    FALLBACKS_MAX,
    RULES_MAX,
    VERSIONS_MAX,
    WEIGHT_MAX,
    all_to,
    mentions,
    problems,
    routed,
    shared,
    sole,
    takers,
    without_fallbacks,
)
from engine.routing import compile_policy
from events.catalogue.endpoints import Policy, Rule, Shadow, When

OFFICE = {
    "name": "office hours",
    "when": {"days": ["mon", "tue"], "from": "09:00", "to": "17:00", "timezone": "Europe/Paris"},
    "split": {"2.0.0": 100},
}
BETA = {"name": "beta", "when": {"attributes": {"tier": "beta"}}, "split": {"2.0.0": 100}}


def policy(**members: Any) -> Policy:
    return msgspec.convert({"split": {"1.0.0": 100}, **members}, Policy)


def ruled(**members: Any) -> Policy:
    return policy(rules=[{**OFFICE, **members}])


def when(**members: Any) -> Policy:
    return ruled(when=members)


def compared(**members: Any) -> Policy:
    return policy(shadow=[{"version": "2.0.0", "compare": members}])


@pytest.mark.parametrize(
    "good",
    [
        policy(),
        policy(split={"1.0.0": 90, "2.0.0": 10.5}, sticky=False),
        policy(split={"1.0.0": 1, "2.0.0": 0}),
        policy(split={"1.0.0": 1e-9, "2.0.0": WEIGHT_MAX}),
        policy(shadow=[{"version": "3.0.0"}, {"version": "4.0.0", "fraction": 0}]),
        policy(rules=[OFFICE, BETA]),
        when(**{"from": "22:00", "to": "06:00"}),
        when(**{"from": "00:00", "to": "23:59"}),
        when(days=["sun"]),
        when(attributes={"tier": ""}),
        ruled(name="x" * 64),
        compared(),
        compared(kind="numeric", tolerance=0.001),
        compared(kind="text", similarity=0.9),
        compared(kind="text", similarity=0),
        compared(kind="function", name="same_label"),
        policy(fallback=["1.0.0", "2.0.0"]),
        policy(shadow=[{"version": "2.0.0"}], fallback=["2.0.0"]),
        policy(fallback=[f"{i}.0.0" for i in range(FALLBACKS_MAX)]),
    ],
)
def test_a_policy_with_a_meaning_has_no_problems_and_compiles(good: Policy) -> None:
    assert problems(good) == {}
    compile_policy(good, salt="acme/chat", position=1)


@pytest.mark.parametrize(
    ("bad", "path", "problem"),
    [
        (policy(split={}), "split", "must name a version"),
        (policy(split={"a": 0}), "split", "must give some version a weight above 0"),
        (policy(split={"a": -1, "b": 2}), "split.a", "must be a finite number, 0 or more"),
        (policy(split={"a": nan}), "split.a", "must be a finite number, 0 or more"),
        (policy(split={"a": inf}), "split.a", "must be a finite number, 0 or more"),
        (policy(split={"a": 5e-324, "b": 1}), "split.a", "must be 0 or between 1e-09 and 1e+09"),
        (policy(split={"a": 2e9}), "split.a", "must be 0 or between 1e-09 and 1e+09"),
        (
            policy(split={f"{i}.0.0": 1 for i in range(VERSIONS_MAX + 1)}),
            "split",
            "the policy names more than 32 versions",
        ),
        (policy(rules=[BETA] * (RULES_MAX + 1)), "rules", "has more than 64 rules"),
        (
            policy(shadow=[{"version": "a", "fraction": 1.1}]),
            "shadow[0].fraction",
            "must be between 0 and 1",
        ),
        (
            policy(shadow=[{"version": "a", "fraction": nan}]),
            "shadow[0].fraction",
            "must be between 0 and 1",
        ),
        (
            policy(shadow=[{"version": "a"}, {"version": "a"}]),
            "shadow[1].version",
            "occurs twice",
        ),
        (policy(fallback=["a", "b", "a"]), "fallback[2]", "occurs twice"),
        (
            policy(fallback=[f"{i}.0.0" for i in range(FALLBACKS_MAX + 1)]),
            "fallback",
            "has more than 8 versions",
        ),
        (
            policy(
                split={f"{i}.0.0": 1 for i in range(VERSIONS_MAX)}, fallback=[f"{VERSIONS_MAX}.0.0"]
            ),
            "split",
            "the policy names more than 32 versions",
        ),
        *(
            (
                compared(kind="numeric", tolerance=tolerance),
                "shadow[0].compare.tolerance",
                "must be a finite number, 0 or more",
            )
            for tolerance in (-0.1, nan, inf)
        ),
        *(
            (
                compared(kind="text", similarity=similarity),
                "shadow[0].compare.similarity",
                "must be between 0 and 1",
            )
            for similarity in (-0.1, 1.1, nan, inf)
        ),
        (
            compared(kind="function"),
            "shadow[0].compare.name",
            "is missing: the kind function needs it",
        ),
        *(
            (
                compared(kind=kind, name="same_label"),
                "shadow[0].compare.name",
                "is for the kind function only",
            )
            for kind in ("exact", "numeric", "text")
        ),
        (policy(rules=[BETA, BETA]), "rules[1].name", "occurs twice"),
        (ruled(split={}), "rules[0].split", "must name a version"),
        (
            ruled(split={"a": 0.0}),
            "rules[0].split",
            "must give some version a weight above 0",
        ),
        (
            when(),
            "rules[0].when",
            "must hold days, from and to, or attributes",
        ),
        (
            when(timezone="Europe/Paris"),
            "rules[0].when",
            "must hold days, from and to, or attributes",
        ),
        (
            when(days=[]),
            "rules[0].when.days",
            "must name each day once, and at least one",
        ),
        (
            when(days=["mon", "mon"]),
            "rules[0].when.days",
            "must name each day once, and at least one",
        ),
        (
            when(days=["mon"], timezone="Mars/Olympus"),
            "rules[0].when.timezone",
            "is not an IANA time zone",
        ),
        (
            when(**{"from": "09:00"}),
            "rules[0].when.to",
            "is missing: a window has both ends",
        ),
        (
            when(to="09:00"),
            "rules[0].when.from",
            "is missing: a window has both ends",
        ),
        (
            when(**{"from": "09:00", "to": "09:00"}),
            "rules[0].when.to",
            "must differ from `from`",
        ),
        (when(attributes={}), "rules[0].when.attributes", "must hold 1 to 16 attributes"),
        (
            when(attributes={f"a{i}": "" for i in range(ATTRIBUTES_MAX + 1)}),
            "rules[0].when.attributes",
            "must hold 1 to 16 attributes",
        ),
        (
            when(attributes={"": "x"}),
            "rules[0].when.attributes.",
            "must have a name of 1 to 64 characters",
        ),
        (
            when(attributes={"tier": "x" * 257}),
            "rules[0].when.attributes.tier",
            "must have at most 256 characters",
        ),
    ],
)
def test_a_policy_without_a_meaning_is_told_where_and_why(
    bad: Policy, path: str, problem: str
) -> None:
    assert problems(bad) == {path: problem}


@pytest.mark.parametrize("time", ["", "9:00", "24:00", "09:60", "09:00:00", "09:00\n", "٠9:00"])
def test_a_time_that_no_clock_shows_is_refused(time: str) -> None:
    assert list(problems(when(**{"from": time, "to": "10:00"}))) == ["rules[0].when.from"]


@pytest.mark.parametrize(
    "zone", ["../../etc/passwd", "/etc/localtime", "", "Europe", "utc\0", "x" * 10_000]
)
def test_a_time_zone_is_looked_up_by_name_never_as_a_path(zone: str) -> None:
    assert list(problems(when(days=["mon"], timezone=zone))) == ["rules[0].when.timezone"]


@pytest.mark.parametrize("name", ["", " ", " a", "a ", "a\r\nSet-Cookie: b", "é", "x" * 65])
def test_the_name_of_a_rule_can_stand_in_a_header(name: str) -> None:
    assert list(problems(ruled(name=name))) == ["rules[0].name"]


@pytest.mark.parametrize("name", ["", "a b", "_a", "os.system", "a\n", "x" * 65, "é"])
def test_a_function_is_named_by_an_identifier(name: str) -> None:
    found = problems(compared(kind="function", name=name))
    assert list(found) == ["shadow[0].compare.name"]


def test_every_problem_is_told_at_once() -> None:
    bad = policy(split={"a": -1}, rules=[OFFICE, {**BETA, "when": {"to": "25:00"}, "split": {}}])
    assert set(problems(bad)) == {
        "split.a",
        "rules[1].when.to",
        "rules[1].when.from",
        "rules[1].split",
    }


def test_a_long_name_is_cut_in_the_path() -> None:
    assert list(problems(policy(split={"9" * 10_000: -1, "a": 1}))) == ["split." + "9" * 80]


def test_takers_are_those_with_weight_in_the_order_they_are_mentioned() -> None:
    mixed = policy(
        split={"2.0.0": 1, "1.0.0": 3, "9.0.0": 0},
        rules=[{**BETA, "split": {"3.0.0": 1, "1.0.0": 1}}],
        shadow=[{"version": "4.0.0"}],
        fallback=["1.0.0", "5.0.0"],
    )
    assert takers(mixed) == ("2.0.0", "1.0.0", "3.0.0")
    assert routed(mixed) == {"1.0.0", "2.0.0", "3.0.0", "4.0.0", "5.0.0"}
    assert sole(mixed) is None
    assert dict(mentions(mixed)) == {
        "split.2.0.0": "2.0.0",
        "split.1.0.0": "1.0.0",
        "split.9.0.0": "9.0.0",
        "rules[0].split.3.0.0": "3.0.0",
        "rules[0].split.1.0.0": "1.0.0",
        "shadow[0].version": "4.0.0",
        "fallback[0]": "1.0.0",
        "fallback[1]": "5.0.0",
    }


def test_one_version_carries_all_traffic_whatever_rules_repeat_and_others_copy_or_back() -> None:
    one = policy(
        split={"2.0.0": 1, "1.0.0": 0},
        rules=[BETA],
        shadow=[{"version": "3.0.0"}],
        sticky=False,
        fallback=["4.0.0"],
    )
    assert sole(one) == "2.0.0"
    assert all_to("5.0.0", like=one) == Policy(
        split={"5.0.0": 100.0}, sticky=False, fallback=("4.0.0",)
    )


def test_a_shared_policy_keeps_all_but_the_rules() -> None:
    before = policy(
        rules=[BETA],
        shadow=[{"version": "3.0.0", "fraction": 0.5}],
        sticky=False,
        fallback=["1.0.0", "4.0.0"],
    )
    assert shared("1.0.0", "2.0.0", 33.3, like=before) == Policy(
        split={"1.0.0": 100 - 33.3, "2.0.0": 33.3},
        sticky=False,
        shadow=before.shadow,
        fallback=("1.0.0", "4.0.0"),
    )
    assert takers(shared("1.0.0", "2.0.0", 0, like=before)) == ("1.0.0",)
    assert takers(shared("1.0.0", "2.0.0", 50, like=before)) == ("1.0.0", "2.0.0")
    assert takers(shared("1.0.0", "2.0.0", 100, like=before)) == ("2.0.0",)


def test_fallbacks_that_are_taken_out_leave_the_others_in_their_order() -> None:
    before = policy(fallback=["3.0.0", "1.0.0", "4.0.0", "2.0.0"])
    assert without_fallbacks(before, {"1.0.0", "2.0.0", "9.0.0"}) == policy(
        fallback=["3.0.0", "4.0.0"]
    )


@over(st.lists(st.sampled_from(["1.0.0", "2.0.0", "3.0.0"])).map(tuple))
def test_a_fallback_takes_no_traffic(named: tuple[str, ...]) -> None:
    alone, backed = policy(), policy(fallback=named)
    assert takers(backed) == takers(alone)
    assert sole(backed) == sole(alone) == "1.0.0"


_versions = st.sampled_from([f"{i}.0.0" for i in range(5)])
_weights = st.one_of(st.just(0.0), st.floats(allow_nan=True), st.integers(0, 100).map(float))
_splits = st.dictionaries(_versions, _weights, max_size=4)
_times = st.sampled_from(["00:00", "09:30", "23:59", "24:00", "9:00"])
_whens = st.builds(
    When,
    days=st.none() | st.lists(st.sampled_from(["mon", "sun"]), max_size=3).map(tuple),
    from_=st.none() | _times,
    to=st.none() | _times,
    timezone=st.none() | st.sampled_from(["UTC", "Asia/Kathmandu", "Nowhere/At_All"]),
    attributes=st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
)
_rules = st.builds(Rule, name=st.text(max_size=3), when=_whens, split=_splits)
_shadows = st.builds(Shadow, version=_versions, fraction=st.floats())
_policies = st.builds(
    Policy,
    split=_splits,
    rules=st.lists(_rules, max_size=2).map(tuple),
    shadow=st.lists(_shadows, max_size=2).map(tuple),
    fallback=st.lists(_versions, max_size=3).map(tuple),
)


@over(_policies)
def test_whatever_has_no_problem_can_be_routed_by(any_policy: Policy) -> None:
    if not problems(any_policy):
        compile_policy(any_policy, salt="acme/chat", position=1)
        assert takers(any_policy)

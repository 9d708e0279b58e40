"""The plan of a rollout, and every way in which one can be wrong."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import msgspec
import pytest
from hypothesis import example
from hypothesis import given as over
from hypothesis import strategies as st

from engine.decisions import policy as policies
from engine.decisions.rollout_plan import DEFAULT_STEPS, STEPS_MAX, problems
from engine.routing import compile_policy
from events.catalogue.endpoints import Analysis, Policy, Shadow, Step
from tests.decisions.endpoints import V1, V2, V3, full

ALONE = full(V1)
SHADOWED = Policy(split={V1: 100.0}, shadow=(Shadow(version=V2),))


def wrong(
    steps: tuple[Step, ...] = DEFAULT_STEPS, policy: Policy = ALONE, **analysis: Any
) -> dict[str, str]:
    return problems(steps=steps, analysis=Analysis(**analysis), to=V2, baseline=V1, policy=policy)


def steps(*weights: float) -> tuple[Step, ...]:
    return tuple(Step(weight=weight, hold_s=60) for weight in weights)


def step(**members: Any) -> tuple[Step, ...]:
    return (Step(**{"weight": 10.0, "hold_s": 60.0, **members}),)


@pytest.mark.parametrize(
    "good",
    [
        DEFAULT_STEPS,
        steps(100),
        steps(0, 1),
        steps(0, 100),
        steps(1e-9, 100 - 1e-9, 100),
        steps(*range(1, STEPS_MAX + 1)),
        step(hold_s=0),
        step(hold_s=30 * 24 * 3_600),
        step(min_samples=1_000_000_000),
    ],
)
def test_steps_that_can_be_taken_have_no_problems(good: tuple[Step, ...]) -> None:
    assert wrong(good) == {}


GROWS = "must be more than that of the step before"
WITHIN = "must be 0 to 100, and no nearer to either than 1e-09"
HOLDS = "must be 0 to 2592000 (30 days)"
SAMPLES = "must be 0 to 1000000000"


@pytest.mark.parametrize(
    ("bad", "found"),
    [
        ((), {"steps": "must be 1 to 32"}),
        (steps(*range(STEPS_MAX + 1)), {"steps": "must be 1 to 32"}),
        (steps(5, 5), {"steps[1].weight": GROWS}),
        (steps(5, 10, 7, 8), {"steps[2].weight": GROWS}),
        (steps(0), {"steps[0].weight": "must be more than 0: it is the last"}),
        (steps(-1, 50), {"steps[0].weight": WITHIN}),
        (steps(50, 100.5), {"steps[1].weight": WITHIN}),
        (steps(nan, 50), {"steps[0].weight": WITHIN}),
        (steps(50, inf), {"steps[1].weight": WITHIN}),
        (steps(5e-324, 50), {"steps[0].weight": WITHIN}),
        (steps(50, 99.99999999999999), {"steps[1].weight": WITHIN}),
        (step(hold_s=-0.1), {"steps[0].hold_s": HOLDS}),
        (step(hold_s=nan), {"steps[0].hold_s": HOLDS}),
        (step(hold_s=inf), {"steps[0].hold_s": HOLDS}),
        (step(hold_s=30 * 24 * 3_600 + 1), {"steps[0].hold_s": HOLDS}),
        (step(min_samples=-1), {"steps[0].min_samples": SAMPLES}),
        (step(min_samples=1_000_000_001), {"steps[0].min_samples": SAMPLES}),
    ],
)
def test_steps_that_cannot_be_taken_are_told_where_and_why(
    bad: tuple[Step, ...], found: dict[str, str]
) -> None:
    assert wrong(bad) == found


@pytest.mark.parametrize(
    "good",
    [
        {},
        {"alpha": 0.5, "margin": 0},
        {"alpha": 1e-9, "margin": 1},
        {"max_error_rate": 0.001, "max_latency_ratio": 1_000},
        {"metric": "latency", "max_latency_ms": 3_600_000},
        {"metric": "timeout_rate", "on_inconclusive": "promote"},
        {"metric": "quality", "check": "is_polite"},
        {"metric": "quality", "check": "x" * 64},
    ],
)
def test_an_analysis_that_can_be_made_has_no_problems(good: dict[str, Any]) -> None:
    assert wrong(**good) == {}


@pytest.mark.parametrize(
    ("name", "values", "problem"),
    [
        ("alpha", (0, -0.1, 0.51, 1, nan, inf), "must be above 0 and at most 0.5"),
        ("margin", (-0.01, 1.01, nan, inf), "must be 0 to 1"),
        ("max_error_rate", (0, 1, -1, nan, inf), "must be above 0 and below 1"),
        ("max_latency_ms", (0, -1, 3_600_001, nan, inf), "must be above 0 and at most 3600000"),
        ("max_latency_ratio", (0, -1, 1_001, nan, inf), "must be above 0 and at most 1000"),
    ],
)
def test_an_analysis_that_cannot_be_made_is_told_where_and_why(
    name: str, values: tuple[float, ...], problem: str
) -> None:
    for value in values:
        bad: dict[str, Any] = {name: value}
        assert wrong(**bad) == {f"analysis.{name}": problem}


@pytest.mark.parametrize("rate", [0, 1, -1, nan, inf])
def test_a_rate_of_disagreement_is_a_rate(rate: float) -> None:
    assert wrong(policy=SHADOWED, max_disagreement_rate=rate) == {
        "analysis.max_disagreement_rate": "must be above 0 and below 1"
    }


def test_latency_is_judged_by_a_limit() -> None:
    assert wrong(metric="latency") == {
        "analysis.max_latency_ms": "is missing: the metric latency needs it"
    }


def test_quality_is_judged_by_a_check_and_nothing_else_is() -> None:
    assert wrong(metric="quality") == {"analysis.check": "is missing: the metric quality needs it"}
    for metric in ("error_rate", "timeout_rate"):
        assert wrong(metric=metric, check="is_polite") == {
            "analysis.check": "is for the metric quality only"
        }


@pytest.mark.parametrize("name", ["", "x" * 65, "_x", "-x", "a.b", "a b", "é", "x\n"])
def test_a_check_is_named_by_an_identifier(name: str) -> None:
    assert list(wrong(metric="quality", check=name)) == ["analysis.check"]


def test_disagreement_is_judged_only_of_a_candidate_that_is_a_shadow() -> None:
    assert wrong(policy=SHADOWED, max_disagreement_rate=0.01) == {}
    for policy in (full(V1), Policy(split={V1: 100.0}, shadow=(Shadow(version=V3),))):
        assert wrong(policy=policy, max_disagreement_rate=0.01) == {
            "analysis.max_disagreement_rate": "needs the candidate as a shadow in the policy"
        }


def test_a_candidate_is_not_what_takes_all_traffic_already() -> None:
    found = problems(steps=DEFAULT_STEPS, analysis=Analysis(), to=V1, baseline=V1, policy=full(V1))
    assert found == {"to": "takes all traffic already"}


def test_every_problem_is_told_at_once() -> None:
    bad = (Step(weight=-1, hold_s=-1, min_samples=-1), Step(weight=-1, hold_s=0))
    assert set(wrong(bad, alpha=0, metric="latency")) == {
        "steps[0].weight",
        "steps[0].hold_s",
        "steps[0].min_samples",
        "steps[1].weight",
        "analysis.alpha",
        "analysis.max_latency_ms",
    }


_numbers = st.floats() | st.floats(0, 100) | st.sampled_from([0.0, 100.0, 5e-324, 1e-9])
_steps = st.builds(Step, weight=_numbers, hold_s=_numbers, min_samples=st.integers(-1, 10**10))


@over(st.lists(_steps, max_size=4).map(tuple))
@example(steps(1e-9, 50, 100 - 1e-9))
def test_whatever_has_no_problem_can_be_routed_by_and_kept(plan: tuple[Step, ...]) -> None:
    if wrong(plan):
        return
    for each in plan:
        policy = policies.shared(V1, V2, each.weight, like=SHADOWED)
        assert policies.problems(policy) == {}
        compile_policy(policy, salt="acme/chat", position=1)
    assert msgspec.json.decode(msgspec.json.encode(plan), type=tuple[Step, ...]) == plan

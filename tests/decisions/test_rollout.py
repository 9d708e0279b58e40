"""Rollouts: how one begins, goes from step to step, is held, and is completed."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from engine.decisions.decider import Refused
from engine.decisions.endpoint import (
    DECIDER,
    Command,
    InvalidRollout,
    RollBack,
    Rollout,
    RolloutUnderWay,
    SwapUnderWay,
    TrafficIsSplit,
    UnknownEndpoint,
    UnknownVersions,
    VersionNotResident,
)
from engine.decisions.rollout_plan import DEFAULT_STEPS
from events import Event
from events.catalogue.endpoints import Analysis, Shadow, Step
from switchback.testing import Given, History
from tests.decisions.endpoints import (
    V1,
    V2,
    V3,
    canary,
    created,
    full,
    policy_set,
    request,
    requested,
    rolled_back,
    split,
    swapped,
)
from tests.decisions.rollouts import (
    FAIL,
    HOLD_S,
    LAST,
    PASS,
    STEPS,
    abort,
    aborted_and_back,
    advance,
    advanced,
    at,
    completed,
    held,
    hold,
    pause,
    paused,
    promote,
    resume,
    shared,
    start,
    started,
    under_way,
)

RULE = {"name": "beta", "when": {"attributes": {"tier": "beta"}}, "split": {V1: 100}}


def rollout_of(history: History) -> Rollout:
    rollout = history.state.rollout
    assert isinstance(rollout, Rollout)
    return rollout


# ------------------------------------------------------------------------------------------- Start


def test_a_rollout_begins_with_its_first_step_in_force(given: Given) -> None:
    history = given(DECIDER, [created()]).when(start()).then([started()])
    rollout = rollout_of(history)
    assert (rollout.step, rollout.weight, rollout.held) == (0, 5, None)
    assert rollout.hold_until == at(HOLD_S)
    assert history.state.policy == shared(5)
    assert history.state.active == V1


def test_asking_again_for_the_rollout_that_is_live_changes_nothing(given: Given) -> None:
    for step in range(len(STEPS)):
        history = given(DECIDER, [created(), *under_way(step)])
        history.when(start()).then([])
        history.when(start(rollout_id="r2")).then([])


def test_without_steps_a_rollout_has_the_usual_ones(given: Given) -> None:
    history = given(DECIDER, [created()])
    history = history.when(start(steps=())).then([started(steps=DEFAULT_STEPS)])
    assert [step.weight for step in DEFAULT_STEPS] == [5, 10, 25, 50, 100]
    history.when(start(steps=())).then([])
    history.when(start(steps=DEFAULT_STEPS)).then([])


# ----------------------------------------------------------------------------------------- Advance


def test_a_step_that_has_passed_gives_way_to_the_next(given: Given) -> None:
    for step in range(LAST):
        history = given(DECIDER, [created(), *under_way(step)])
        history = history.when(advance(step, verdicts=(PASS,), now=at(61))).then(
            [advanced(step + 1, verdicts=(PASS,), hold_until=at(61 + HOLD_S))]
        )
        rollout = rollout_of(history)
        assert (rollout.step, rollout.weight) == (step + 1, STEPS[step + 1].weight)
        assert rollout.hold_until == at(61 + HOLD_S)


def test_the_last_step_that_has_passed_completes_the_rollout(given: Given) -> None:
    history = given(DECIDER, [created(), *under_way(LAST)])
    history = history.when(advance(LAST, verdicts=(PASS,))).then([completed(verdicts=(PASS,))])
    state = history.state
    assert (state.active, state.previous, state.rollout) == (V2, V1, None)
    assert state.policy == full(V2)
    assert state.pinned_versions == {V1, V2}
    history.when(RollBack()).then([rolled_back(V1, V2)])


@pytest.mark.parametrize(
    ("before", "conflict", "attributes"),
    [
        ([started()], RolloutUnderWay, {"rollout_id": "r1", "to": V2}),
        ([requested(V1, V2)], SwapUnderWay, {"swap_id": "s1", "to": V2}),
        ([policy_set(canary(V1, V2))], TrafficIsSplit, {"versions": (V1, V2)}),
        (
            [policy_set(split(split={V1: 1}, rules=[{**RULE, "split": {V2: 1}}]))],
            TrafficIsSplit,
            {"versions": (V1, V2)},
        ),
    ],
)
def test_a_rollout_begins_only_where_one_version_takes_all_traffic_to_stay(
    given: Given, before: list[Event], conflict: type[Refused], attributes: dict[str, Any]
) -> None:
    history = given(DECIDER, [created(), *before])
    history.when(start(V3, "r2")).refused(conflict, **attributes, code="conflict")


@pytest.mark.parametrize("change", [{"steps": STEPS[1:]}, {"analysis": Analysis(alpha=0.01)}])
def test_another_plan_for_the_same_candidate_is_another_rollout(
    given: Given, change: dict[str, Any]
) -> None:
    history = given(DECIDER, [created(), started()])
    history.when(start(rollout_id="r2", **change)).refused(RolloutUnderWay, rollout_id="r1")


def test_a_candidate_is_registered_and_resident(given: Given) -> None:
    outcome = given(DECIDER, [created()]).when(start("9.0.0"))
    outcome.refused(UnknownVersions, versions=frozenset({"9.0.0"}))
    assert list(outcome.fields) == ["to"]
    given(DECIDER, [created()]).when(start(resident=frozenset({V1, V3}))).refused(
        VersionNotResident, versions=frozenset({V2}), code="conflict"
    )


def test_the_baseline_need_not_be_resident(given: Given) -> None:
    only_new = frozenset({V2})
    given(DECIDER, [created()]).when(start(resident=only_new)).then([started()])
    for step in range(LAST):
        history = given(DECIDER, [created(), *under_way(step)])
        history.when(advance(step, resident=only_new)).then([advanced(step + 1)])
    history = given(DECIDER, [created(), *under_way(LAST)])
    history.when(advance(LAST, resident=only_new)).then([completed()])


def test_what_is_wrong_with_a_plan_is_told_field_by_field(given: Given) -> None:
    steps = (Step(weight=10, hold_s=-1), Step(weight=10, hold_s=1), Step(weight=101, hold_s=1))
    outcome = given(DECIDER, [created()]).when(start(V1, steps=steps))
    outcome.refused(InvalidRollout, code="invalid")
    assert set(outcome.fields) == {"to", "steps[0].hold_s", "steps[1].weight", "steps[2].weight"}


def test_stickiness_and_shadows_stay_during_a_rollout_and_rules_end(given: Given) -> None:
    before = split(
        split={V1: 1}, sticky=False, rules=[RULE], shadow=[{"version": V2}, {"version": V3}]
    )
    kept = {"sticky": False, "shadow": (Shadow(version=V2), Shadow(version=V3))}
    history = given(DECIDER, [created(), policy_set(before)])
    history = history.when(start()).then([started(policy=replace(shared(5), **kept))])
    assert history.state.routed_versions == {V1, V2, V3}
    history = history.when(advance(0)).then([advanced(1, policy=replace(shared(25), **kept))])
    history = history.when(advance(1)).then([advanced(2, policy=replace(shared(50), **kept))])
    assert not history.state.policy.rules


def test_baseline_and_candidate_are_pinned_whatever_the_weight(given: Given) -> None:
    weights = (0.0, 50.0, 100.0)
    steps = tuple(Step(weight=weight, hold_s=HOLD_S) for weight in weights)
    history = given(DECIDER, [created(), started(steps=steps)])
    for step, weight in enumerate(weights):
        state = history.state
        assert state.pinned_versions == {V1, V2}
        assert (state.active, state.rollback_target) == (V1, V1)
        assert rollout_of(history).weight == weight
        if step < len(weights) - 1:
            history = history.when(advance(step)).then(
                [advanced(step + 1, policy=shared(weights[step + 1]))]
            )
    assert history.state.arrivals == (V2,)


def test_the_version_before_the_baseline_stays_pinned_until_the_rollout_is_completed(
    given: Given,
) -> None:
    before = [created(V3), *swapped(V3, V1), *under_way(LAST)]
    history = given(DECIDER, before)
    assert history.state.pinned_versions == {V1, V2, V3}
    history = history.when(advance(LAST)).then([completed()])
    assert history.state.pinned_versions == {V1, V2}


def test_an_id_of_a_rollout_that_has_ended_starts_nothing(given: Given) -> None:
    history = given(DECIDER, [created(), started(), *aborted_and_back()])
    history.when(start()).then([])
    history.when(start(rollout_id="r2")).then([started(rollout_id="r2")])


# ------------------------------------------------------------------------------- Reports of a step


@pytest.mark.parametrize("report", [advance(0), advance(2), hold(0), hold(2)])
def test_a_report_about_a_step_that_is_not_in_force_changes_nothing(
    given: Given, report: Command
) -> None:
    given(DECIDER, [created(), *under_way(1)]).when(report).then([])


@pytest.mark.parametrize(
    "before", [[], [started(rollout_id="r2")], [started(), completed()], [requested(V1, V2)]]
)
def test_a_report_about_a_rollout_that_is_not_live_changes_nothing(
    given: Given, before: list[Event]
) -> None:
    for report in (advance(0), hold(0, FAIL)):
        given(DECIDER, [created(), *before]).when(report).then([])


def test_a_step_passes_once(given: Given) -> None:
    history = given(DECIDER, [created(), started()]).when(advance(0)).then([advanced(1)])
    history.when(advance(0)).then([])
    history = given(DECIDER, [created(), *under_way(LAST)]).when(advance(LAST)).then([completed()])
    history.when(advance(LAST)).then([])


def test_the_share_grows_only_while_the_candidate_is_resident(given: Given) -> None:
    for step in range(len(STEPS)):
        history = given(DECIDER, [created(), *under_way(step)])
        history.when(advance(step, resident=frozenset({V1}))).refused(
            VersionNotResident, versions=frozenset({V2})
        )


def test_a_step_that_is_not_known_to_be_good_is_held_once(given: Given) -> None:
    history = given(DECIDER, [created(), *under_way(1)])
    history = history.when(hold(1, PASS)).then([held(1, PASS)])
    assert (rollout_of(history).held, rollout_of(history).step) == ("inconclusive", 1)
    assert history.state.policy == shared(25)
    history.when(hold(1, FAIL)).then([])


@pytest.mark.parametrize("reason", ["passed", "inconclusive"])
def test_a_held_step_still_passes_and_the_next_one_is_not_held(given: Given, reason: Any) -> None:
    history = given(DECIDER, [created(), *under_way(1), held(1)])
    history = history.when(advance(1, reason=reason)).then([advanced(2, reason)])
    assert rollout_of(history).held is None
    history = given(DECIDER, [created(), *under_way(LAST), held(LAST)])
    history.when(advance(LAST, reason=reason)).then([completed(reason)])


def test_a_paused_step_neither_passes_nor_is_held(given: Given) -> None:
    history = given(DECIDER, [created(), started(), paused(0)])
    history.when(advance(0)).then([])
    history.when(hold(0)).then([])


@pytest.mark.parametrize(
    "command",
    [start(), advance(0), hold(0), pause(), resume(), promote(), abort()],
    ids=lambda command: type(command).__name__,
)
def test_there_is_no_rollout_of_an_endpoint_that_does_not_exist(
    given: Given, command: Command
) -> None:
    given(DECIDER).when(command).refused(UnknownEndpoint)


def test_another_swap_waits_for_the_end_of_the_rollout(given: Given) -> None:
    for step in range(len(STEPS)):
        history = given(DECIDER, [created(), *under_way(step)])
        for to in (V1, V2, V3):
            history.when(request(to)).refused(
                RolloutUnderWay, rollout_id="r1", to=V2, code="conflict"
            )


def test_a_swap_after_a_rollout_is_a_swap_like_any_other(given: Given) -> None:
    history = given(DECIDER, [created(), started(), completed()])
    history.when(request(V2)).then([])
    history.when(request(V1)).then([requested(V2, V1)])

"""What else ends a rollout: a rollback, an alert about its candidate, a policy."""

from __future__ import annotations

from typing import Any

import pytest

from engine.decisions.alert import OPEN_ALERTS_MAX
from engine.decisions.endpoint import DECIDER, InvalidAlert, InvalidPolicy, RollBack
from events import Event
from events.catalogue.endpoints import AlertCleared, Step
from switchback.testing import Given
from tests.decisions.endpoints import (
    V1,
    V2,
    V3,
    alarm,
    alarmed,
    canary,
    created,
    full,
    policy_set,
    rolled_back,
    set_policy,
    split,
    swapped,
    warn,
    warned,
)
from tests.decisions.rollouts import (
    LAST,
    STEPS,
    aborted,
    advance,
    advanced,
    completed,
    held,
    paused,
    promote_fully,
    returned,
    shared,
    started,
    under_way,
)

CRITICAL = "critical alert: error_rate"
WARM_UP = (Step(weight=0, hold_s=60), Step(weight=50, hold_s=60))

# ---------------------------------------------------------------------------------------- RollBack


@pytest.mark.parametrize("step", range(len(STEPS)))
def test_a_rollback_ends_the_rollout_wherever_it_is(given: Given, step: int) -> None:
    for manner in ([], [held(step)], [paused(step)]):
        history = given(DECIDER, [created(), *under_way(step), *manner])
        history = history.when(RollBack(reason="no")).then(
            [aborted("rolled_back", step, "no"), returned("no")]
        )
        assert (history.state.active, history.state.rollout) == (V1, None)
        history.when(RollBack()).then([])
        history.when(advance(step)).then([])


def test_a_rollback_ends_at_the_baseline_also_before_the_candidate_has_traffic(
    given: Given,
) -> None:
    begun = started(steps=WARM_UP, policy=shared(0))
    given(DECIDER, [created(V3), *swapped(V3, V1), begun]).when(RollBack()).then(
        [aborted("rolled_back"), returned("")]
    )


def test_a_rollback_and_the_last_step_end_the_same_in_both_orders(given: Given) -> None:
    at_last = given(DECIDER, [created(), *under_way(LAST)])
    first = at_last.when(RollBack()).then([aborted("rolled_back", LAST), returned("")])
    first.when(advance(LAST)).then([])
    second = at_last.when(advance(LAST)).then([completed()])
    second = second.when(RollBack()).then([returned("")])
    assert first.state.policy == second.state.policy == full(V1)
    assert first.state.active == second.state.active == V1


# ------------------------------------------------------------------------------------------ Alerts


@pytest.mark.parametrize("step", range(len(STEPS)))
@pytest.mark.parametrize("version", [None, V2])
def test_a_critical_alert_about_the_candidate_ends_the_rollout(
    given: Given, step: int, version: str | None
) -> None:
    history = given(DECIDER, [created(), *under_way(step)])
    history = history.when(alarm(version=version)).then(
        [alarmed(V2), aborted("alert", step, CRITICAL), returned(CRITICAL)]
    )
    assert (history.state.active, history.state.rollout) == (V1, None)
    history.when(alarm(version=version)).then([])


def test_a_candidate_without_traffic_yet_is_on_trial_when_it_is_named(given: Given) -> None:
    begun = given(DECIDER, [created(), started(steps=WARM_UP, policy=shared(0))])
    begun.when(alarm(version=V2)).then(
        [alarmed(V2), aborted("alert", detail=CRITICAL), returned(CRITICAL)]
    )
    begun.when(alarm()).then([alarmed(V1)])


def test_a_warning_ends_nothing(given: Given) -> None:
    history = given(DECIDER, [created(), started()]).when(warn()).then([warned(V2)])
    history.when(advance(0)).then([advanced(1)])


@pytest.mark.parametrize("before", [[], swapped(V3, V1, "s0")])
def test_a_broken_baseline_neither_ends_a_rollout_nor_stands_in_its_way(
    given: Given, before: list[Event]
) -> None:
    for step in range(len(STEPS)):
        history = given(DECIDER, [created(V3 if before else V1), *before, *under_way(step)])
        history = history.when(alarm(version=V1)).then([alarmed(V1)])
        history.when(alarm(version=V1)).then([])
        history.when(promote_fully()).then([completed("promoted")])
        after = completed() if step == LAST else advanced(step + 1)
        history.when(advance(step)).then([after])


def test_a_rollout_past_a_broken_baseline_still_has_a_way_back(given: Given) -> None:
    history = given(DECIDER, [created(), started(), alarmed(V1), completed()])
    history.when(RollBack()).then([returned("")])


def test_an_alert_about_a_version_that_has_no_traffic_is_recorded_and_moves_nothing(
    given: Given,
) -> None:
    for before in ([], [*swapped(V1, V2)], [started()]):
        history = given(DECIDER, [created(), *before])
        policy = history.state.policy
        history = history.when(alarm(version=V3)).then([alarmed(V3)])
        assert history.state.policy == policy
        history.when(alarm("a2", version=V3)).then([])


def test_a_late_alarm_about_a_candidate_that_is_gone_does_not_go_back_twice(given: Given) -> None:
    before = [created(V3), *swapped(V3, V1), started(), aborted("alert"), returned(CRITICAL)]
    history = given(DECIDER, [*before]).when(alarm(version=V2)).then([alarmed(V2)])
    history.when(alarm("a2", version=V2)).then([])
    history.when(RollBack()).then([])


def test_an_alert_about_an_older_version_of_a_canary_moves_nothing(given: Given) -> None:
    shared_out = policy_set(split(split={V1: 1, V2: 1, V3: 1}))
    history = given(DECIDER, [created(), policy_set(canary(V1, V2)), shared_out])
    history.when(alarm(version=V2)).then([alarmed(V2)])
    history.when(alarm(version=V3)).then([alarmed(V3), rolled_back(V1, V2, V3, reason=CRITICAL)])


def test_a_critical_alert_about_the_newest_version_named_rolls_back(given: Given) -> None:
    history = given(DECIDER, [created(), *swapped(V1, V2)])
    history.when(alarm(version=V2)).then([alarmed(V2), returned(CRITICAL)])


def test_an_alarm_counts_though_another_had_to_give_way(given: Given) -> None:
    # The one that gives way is what made V1 a bad target.
    crowd = [alarmed(V1), *(warned(V2, f"w{i}", f"kind {i}") for i in range(1, OPEN_ALERTS_MAX))]
    history = given(DECIDER, [created(V3), *swapped(V3, V1), started(), *crowd])
    history.when(alarm("a2")).then(
        [
            AlertCleared(alert_id="a1", reason="displaced by newer alerts"),
            alarmed(V2, "a2"),
            aborted("alert", detail=CRITICAL),
            returned(CRITICAL),
        ]
    )


@pytest.mark.parametrize("version", ["", "latest", "1.0", "1.0.0\n", "x" * 10_000])
def test_an_alert_names_a_version_that_can_be_one(given: Given, version: str) -> None:
    outcome = given(DECIDER, [created()]).when(alarm(version=version))
    outcome.refused(InvalidAlert)
    assert list(outcome.fields) == ["version"]


# ---------------------------------------------------------------------------------------- SetPolicy


@pytest.mark.parametrize("step", range(len(STEPS)))
@pytest.mark.parametrize(
    ("policy", "active", "previous"),
    [
        (full(V1), V1, None),
        (full(V2), V2, V1),
        (full(V3), V3, V1),
        (canary(V1, V3), V1, None),
        (canary(V2, V1), V1, None),
    ],
)
def test_a_policy_supersedes_the_rollout(
    given: Given, step: int, policy: Any, active: str, previous: str | None
) -> None:
    history = given(DECIDER, [created(), *under_way(step)])
    history = history.when(set_policy(policy)).then(
        [aborted("superseded", step, "a policy was set"), policy_set(policy)]
    )
    state = history.state
    assert (state.active, state.previous, state.rollout) == (active, previous, None)
    history.when(set_policy(policy)).then([])
    history.when(advance(step)).then([])


def test_a_policy_that_is_the_one_of_the_step_ends_the_rollout_there(given: Given) -> None:
    history = given(DECIDER, [created(), *under_way(1)])
    history = history.when(set_policy(shared(25))).then(
        [aborted("superseded", 1, "a policy was set"), policy_set(shared(25))]
    )
    history.when(set_policy(shared(25))).then([])


def test_a_policy_that_is_refused_leaves_the_rollout_as_it_was(given: Given) -> None:
    history = given(DECIDER, [created(), started()])
    history = history.when(set_policy(split(split={V1: -1}))).refused(InvalidPolicy)
    history.when(advance(0)).then([advanced(1)])

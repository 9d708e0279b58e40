"""Rollouts: how one begins, goes from step to step, is held, and is completed."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from engine.decisions.endpoint import (
    DECIDER,
    AdvanceRollout,
    Command,
    InvalidRollout,
    Rollout,
    RollBack,
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
    NOW,
    PASS,
    STEPS,
    abort,
    advance,
    advanced,
    at,
    completed,
    hold,
    held,
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
    history = given(DECIDER, [created()]).when(start(steps=()))
    history = history.then([started(steps=DEFAULT_STEPS)])
    assert [step.weight for step in DEFAULT_STEPS] == [5, 10, 25, 50, 100]
    history.when(start(steps=())).then([])
    history.when(start(steps=DEFAULT_STEPS)).then([])


# ----------------------------------------------------------------------------------------- Advance


def test_a_step_that_has_passed_gives_way_to_the_next(given: Given) -> None:
    for step in range(LAST):
        history = given(DECIDER, [created(), *under_way(step)])
        history = history.when(advance(step, verdicts=(PASS,), now=at(61)))
        history = history.then([advanced(step + 1, verdicts=(PASS,), hold_until=at(61 + HOLD_S))])
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

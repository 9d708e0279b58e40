"""What operators do to a rollout: pause, resume, promote, abort; also twice, and too late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from engine.decisions.endpoint import (
    DECIDER,
    Command,
    RollBack,
    RolloutEnded,
    StepNotReached,
    UnknownRollout,
    VersionNotResident,
)
from engine.decisions.endpoint_state import ENDED_ROLLOUTS_MAX
from engine.decisions.under_way import TEXT_CHARS_MAX
from events import Event
from switchback.testing import Given, History
from tests.decisions.endpoints import V1, V2, V3, alarmed, created, rolled_back, swapped
from tests.decisions.rollouts import (
    FAIL,
    HOLD_S,
    LAST,
    STEPS,
    abort,
    aborted,
    aborted_and_back,
    advance,
    advanced,
    after,
    at,
    completed,
    held,
    hold,
    pause,
    paused,
    promote,
    promote_fully,
    resume,
    resumed,
    returned,
    start,
    started,
    under_way,
)

MANNERS: Final[dict[str, Callable[[int], list[Event]]]] = {
    "running": lambda step: [],
    "held": lambda step: [held(step)],
    "paused": lambda step: [paused(step)],
    "held, then paused": lambda step: [held(step), paused(step, left_s=0)],
    "resumed": lambda step: [paused(step), resumed(step)],
}
"""How a rollout stands in its step."""
LIVE: Final = {
    f"{manner} at step {step}": [created(), *under_way(step), *events(step)]
    for manner, events in MANNERS.items()
    for step in range(len(STEPS))
}


@pytest.fixture(params=LIVE.values(), ids=[name.replace(" ", "-") for name in LIVE])
def live(request: pytest.FixtureRequest, given: Given) -> History:
    """A history at whose end a rollout is live."""
    return given(DECIDER, request.param)


# -------------------------------------------------------------------------------- Pause and resume


def test_a_paused_rollout_goes_on_with_what_was_left_of_its_hold(given: Given) -> None:
    history = given(DECIDER, [created(), started()])
    history = history.when(pause(at(20))).then([paused(0, left_s=40)])
    rollout = history.state.rollout
    assert (rollout.held, rollout.hold_left_s) == ("paused", 40)
    history.when(pause(at(30))).then([])
    history = history.when(resume(at(1_000))).then([resumed(0, at(1_040))])
    rollout = history.state.rollout
    assert (rollout.held, rollout.hold_until, rollout.hold_left_s) == (None, at(1_040), 0)
    history.when(resume(at(1_001))).then([])


def test_nothing_is_left_of_a_hold_that_is_over(given: Given) -> None:
    history = given(DECIDER, [created(), started()])
    history = history.when(pause(at(HOLD_S + 1))).then([paused(0, left_s=0)])
    history.when(resume(at(500))).then([resumed(0, at(500))])


def test_an_inconclusive_hold_can_be_paused_and_is_judged_at_once_when_resumed(
    given: Given,
) -> None:
    history = given(DECIDER, [created(), started(), held(0)])
    history = history.when(pause(at(70))).then([paused(0, left_s=0)])
    assert history.state.rollout.held == "paused"
    history.when(advance(0)).then([])
    history.when(resume(at(90))).then([resumed(0, at(90))])


def test_an_inconclusive_hold_can_be_resumed(given: Given) -> None:
    history = given(DECIDER, [created(), started(), held(0)])
    history = history.when(resume(at(90))).then([resumed(0, at(90))])
    history.when(resume(at(91))).then([])
    history.when(hold(0)).then([held(0)])


def test_a_pause_moves_no_traffic(live: History) -> None:
    for command in (pause(), resume()):
        assert after(live, command).state.policy == live.state.policy


# ----------------------------------------------------------------------------------------- Promote


def test_whatever_holds_it_an_operator_takes_the_next_step_with_its_whole_hold(
    live: History,
) -> None:
    step = live.state.rollout.step
    for named in (None, step):
        outcome = live.when(promote(named, now=at(7)))
        if step == LAST:
            outcome.then([completed("promoted")])
            continue
        history = outcome.then([advanced(step + 1, "promoted", hold_until=at(7 + HOLD_S))])
        assert history.state.rollout.held is None


def test_whatever_holds_it_an_operator_completes_it_from_any_step(live: History) -> None:
    history = live.when(promote_fully()).then([completed("promoted")])
    assert (history.state.active, history.state.previous) == (V2, V1)
    history.when(promote_fully()).then([])
    history.when(RollBack()).then([rolled_back(V1, V2)])


def test_two_operators_who_press_at_the_same_step_advance_once(given: Given) -> None:
    history = given(DECIDER, [created(), *under_way(1)])
    history = history.when(promote(1)).then([advanced(2, "promoted")])
    history.when(promote(1)).then([])
    history = given(DECIDER, [created(), *under_way(LAST)])
    history = history.when(promote(LAST)).then([completed("promoted")])
    history.when(promote(LAST)).then([])
    history.when(promote(1)).then([])


def test_an_operator_who_names_no_step_and_presses_twice_takes_two(given: Given) -> None:
    history = given(DECIDER, [created(), started()])
    history = history.when(promote()).then([advanced(1, "promoted")])
    history.when(promote()).then([advanced(2, "promoted")])


def test_one_who_wants_all_of_it_gets_it_also_when_another_takes_one_step(given: Given) -> None:
    history = given(DECIDER, [created(), *under_way(1)])
    history = history.when(promote(1)).then([advanced(2, "promoted")])
    history.when(promote_fully(from_step=1)).then([completed("promoted")])


def test_a_step_that_is_still_to_come_cannot_be_ended(given: Given) -> None:
    history = given(DECIDER, [created(), *under_way(1)])
    history.when(promote(2)).refused(StepNotReached, named=2, step=1, code="conflict")


def test_a_version_that_is_not_resident_is_not_promoted(live: History) -> None:
    for command in (promote(resident=frozenset({V1})), promote_fully(resident=frozenset({V1}))):
        live.when(command).refused(VersionNotResident, versions=frozenset({V2}))


def test_a_baseline_that_is_broken_or_not_resident_stops_no_promotion(
    live: History,
) -> None:
    only_new = frozenset({V2})
    history = live.when(promote_fully(resident=only_new)).then([completed("promoted")])
    assert history.state.active == V2
    broken = History(DECIDER, (*live.events, alarmed(V1)))
    broken.when(promote_fully(resident=only_new)).then([completed("promoted")])


# ------------------------------------------------------------------------------------------- Abort


@pytest.mark.parametrize("reason", ["aborted", "failed", "inconclusive"])
def test_whatever_holds_it_a_rollout_is_aborted_and_traffic_returns(
    live: History, reason: Any
) -> None:
    step = live.state.rollout.step
    command = abort(reason=reason, detail="40 % failed", verdicts=(FAIL,))
    history = live.when(command).then(
        [
            aborted(reason, step, "40 % failed", verdicts=(FAIL,)),
            returned(f"rollout {reason}: 40 % failed"),
        ]
    )
    state = history.state
    assert (state.active, state.rollout, state.rolled_back) == (V1, None, True)
    assert state.pinned_versions == {V1}
    history.when(command).then([])
    history.when(RollBack()).then([])


def test_an_abort_goes_past_a_baseline_that_is_known_to_be_bad(given: Given) -> None:
    before = [created(V3), *swapped(V3, V1), started(), alarmed(V1)]
    given(DECIDER, before).when(abort()).then(
        [aborted("aborted"), rolled_back(V3, V1, V2, reason="rollout aborted")]
    )


def test_an_abort_never_leaves_traffic_with_the_candidate(given: Given) -> None:
    came_from = [created(V2), *swapped(V2, V1), started(), alarmed(V1)]
    given(DECIDER, came_from).when(abort()).then([*aborted_and_back()])
    both_bad = [*came_from, alarmed(V2, "a2", "latency")]
    given(DECIDER, both_bad).when(abort()).then([*aborted_and_back()])


def test_a_long_story_does_not_stop_an_abort(given: Given) -> None:
    history = given(DECIDER, [created(), started()])
    reason = f"rollout failed: {'x' * TEXT_CHARS_MAX}"[:TEXT_CHARS_MAX]
    history.when(abort(reason="failed", detail="x" * 1_000_000)).then(
        [aborted("failed", detail="x" * TEXT_CHARS_MAX), returned(reason)]
    )


def test_after_an_abort_the_same_version_may_be_tried_again(given: Given) -> None:
    history = given(DECIDER, [created(), started(), *aborted_and_back()])
    history = history.when(start(rollout_id="r2")).then([started(rollout_id="r2")])
    history.when(abort()).then([])
    history.when(abort("r2")).then(
        [aborted("aborted", rollout_id="r2"), returned("rollout aborted")]
    )


# ------------------------------------------------------------------------------ Rollouts that ended


@pytest.mark.parametrize(
    "command",
    [pause(), resume(), promote(), abort(), abort(reason="failed")],
    ids=lambda command: type(command).__name__,
)
def test_a_rollout_that_was_completed_is_over(given: Given, command: Command) -> None:
    for later in ([], [started(V2, V3, "r2")]):
        history = given(DECIDER, [created(), *under_way(LAST), completed(), *later])
        history.when(command).refused(
            RolloutEnded, rollout_id="r1", outcome="completed", code="conflict"
        )


@pytest.mark.parametrize(
    "command", [pause(), resume(), promote(), promote(0), promote_fully()], ids=repr
)
def test_a_rollout_that_was_aborted_is_over(given: Given, command: Command) -> None:
    history = given(DECIDER, [created(), started(), *aborted_and_back()])
    history.when(command).refused(RolloutEnded, rollout_id="r1", outcome="aborted")


@pytest.mark.parametrize(
    "command", [pause(), resume(), promote(), promote_fully(), abort()], ids=repr
)
def test_a_rollout_nobody_started_is_not_found(given: Given, command: Command) -> None:
    for before in ([], [started(rollout_id="r2")]):
        given(DECIDER, [created(), *before]).when(command).refused(
            UnknownRollout, rollout_id="r1", code="not_found"
        )


def test_the_last_few_rollouts_are_known_by_how_they_ended(given: Given) -> None:
    history = given(DECIDER, [created()])
    ids = [f"r{index}" for index in range(ENDED_ROLLOUTS_MAX + 1)]
    for rollout_id in ids:
        history = history.when(start(rollout_id=rollout_id)).then([started(rollout_id=rollout_id)])
        history = after(history, abort(rollout_id))
    assert len(history.state.ended_rollouts) == ENDED_ROLLOUTS_MAX
    history.when(pause(rollout_id=ids[0])).refused(UnknownRollout)
    history.when(pause(rollout_id=ids[1])).refused(RolloutEnded, outcome="aborted")

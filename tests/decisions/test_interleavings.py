"""Two operators at once: both decide on the same state, one is first, the other decides again."""

from __future__ import annotations

from itertools import product
from typing import Final

import pytest
from msgspec.structs import replace

from engine.decisions.decider import Refused, fold
from engine.decisions.endpoint import (
    DECIDER,
    AdvanceRollout,
    ClearAlert,
    Command,
    CompleteSwap,
    Endpoint,
    FailSwap,
    HoldRollout,
    NothingToRollBack,
    RollBack,
    SwapUnderWay,
)
from engine.decisions.policy import sole
from events import Event
from switchback.testing import Given, History
from tests.decisions.endpoints import (
    V1,
    V2,
    V3,
    alarm,
    alarmed,
    canary,
    complete,
    completed,
    create,
    created,
    failed,
    full,
    policy_set,
    request,
    requested,
    rolled_back,
    set_policy,
    swapped,
    warn,
    warned,
)
from tests.decisions.rollouts import (
    LAST,
    STEPS,
    abort,
    aborted_and_back,
    advance,
    held,
    hold,
    pause,
    paused,
    promote,
    promote_fully,
    resume,
    shared,
    start,
    started,
    under_way,
)
from tests.decisions.rollouts import completed as rolled_out

STATES: Final[dict[str, list[Event]]] = {
    "new": [],
    "created": [created()],
    "moved": [created(), *swapped(V1, V2, "s0")],
    "canary": [created(), policy_set(canary(V1, V2))],
    "later canary": [created(), *swapped(V1, V2, "s0"), policy_set(canary(V2, V3))],
    "pending": [created(), requested(V1, V2)],
    "moved, pending": [created(), *swapped(V1, V3, "s0"), requested(V3, V2)],
    "canary, pending": [created(), policy_set(canary(V1, V3)), requested(V1, V2)],
    "rolled back": [created(), *swapped(V1, V2, "s0"), rolled_back(V1, V2)],
    "rolled back, pending": [
        created(),
        *swapped(V1, V2, "s0"),
        rolled_back(V1, V2),
        requested(V1, V2),
    ],
    "rollout": [created(), started()],
    "later rollout": [created(V3), *swapped(V3, V1, "s0"), *under_way(1)],
    "rollout at its end": [created(), *under_way(LAST)],
    "rollout, held": [created(), *under_way(1), held(1)],
    "rollout, paused": [created(), started(), paused(0)],
    "rollout, completed": [created(), *under_way(LAST), rolled_out()],
    "rollout, aborted": [created(), started(), *aborted_and_back()],
    "with fallbacks": [created(), policy_set(replace(full(V1), fallback=(V3, V2)))],
    "moved, with fallbacks": [
        created(),
        *swapped(V1, V2, "s0"),
        policy_set(replace(full(V2), fallback=(V2, V3, V1))),
    ],
    "rollout, with fallbacks": [
        created(),
        policy_set(replace(full(V1), fallback=(V2, V3))),
        started(policy=replace(shared(STEPS[0].weight), fallback=(V2, V3))),
    ],
    "warned": [created(), *swapped(V1, V2, "s0"), warned(V2)],
    "alarmed": [created(), alarmed(V1)],
}
COMMANDS: Final[dict[str, Command]] = {
    "create": create(),
    "create otherwise": create(V2),
    "canary": set_policy(canary(V1, V3)),
    "all to v3": set_policy(full(V3)),
    "swap to v2": request(V2),
    "swap to v3": request(V3, "s2"),
    "complete": complete(),
    "fail": FailSwap(swap_id="s1", reason="timeout"),
    "roll back": RollBack(),
    "warn": warn("a2"),
    "alarm": alarm("a3"),
    "clear": ClearAlert(alert_id="a1"),
    "start": start(),
    "start another": start(V3, "r2"),
    **{f"step {step} has passed": advance(step) for step in range(len(STEPS))},
    "hold": hold(1),
    "pause": pause(),
    "resume": resume(),
    "promote": promote(1),
    "promote fully": promote_fully(),
    "abort": abort(),
    "alarm about the baseline": alarm("a4", version=V1),
    "alarm about the candidate": alarm("a5", version=V2),
}
REPORTS: Final = (CompleteSwap, FailSwap, AdvanceRollout, HoldRollout)


@pytest.fixture(params=STATES, ids=lambda name: name.replace(" ", "-"))
def before(request: pytest.FixtureRequest) -> History:
    return History(DECIDER, STATES[request.param])


def after(history: History, command: Command) -> History | None:
    """The history with what the command led to; None if it was refused."""
    decided = history.when(command).decided
    if isinstance(decided, Refused):
        return None
    return History(DECIDER, (*history.events, *decided))


def state_of(history: History) -> Endpoint:
    state = fold(DECIDER, history.events)
    assert state is not None
    return state


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_two_operators_with_the_same_command_do_it_once(before: History, command: Command) -> None:
    once = after(before, command)
    if once is not None:
        once.when(command).then([])


def test_whoever_rolls_back_second_wins(before: History) -> None:
    for command in COMMANDS.values():
        history = after(before, command)
        if history is None:
            continue
        outcome = history.when(RollBack())
        if isinstance(outcome.decided, Refused):
            assert isinstance(outcome.decided, NothingToRollBack)
            state = state_of(history)
            assert sole(state.policy) == state.active
            assert (state.swap, state.rollout) == (None, None)
            continue
        state = state_of(outcome.then(outcome.decided))
        loser = state_of(history)
        assert {*loser.arrivals, loser.incoming}.isdisjoint(
            {*state.policy.fallback} - {state.active}
        )
        assert sole(state.policy) == state.active
        assert (state.swap, state.rollout) == (None, None)


def test_whoever_aborts_second_wins_unless_the_rollout_is_over(before: History) -> None:
    for command in COMMANDS.values():
        history = after(before, command)
        if history is None or (rollout := state_of(history).rollout) is None:
            continue
        last = after(history, abort(rollout.rollout_id))
        assert last is not None
        state = state_of(last)
        assert state.rollout is None
        assert sole(state.policy) == state.active != rollout.candidate


def test_a_rollback_that_comes_first_is_not_undone_by_reports_of_what_it_ended(
    before: History,
) -> None:
    history = after(before, RollBack())
    if history is not None:
        for command in COMMANDS.values():
            if isinstance(command, REPORTS):
                history.when(command).then([])


def test_every_loser_is_told_or_had_no_effect_or_is_on_top(before: History) -> None:
    for first, second in product(COMMANDS.values(), repeat=2):
        history = after(before, first)
        if history is None:
            continue
        last = after(history, second)
        if last is not None and last.events != history.events:
            assert last.events[: len(history.events)] == history.events
            assert state_of(last) != state_of(history)


def test_two_swaps_at_once_one_is_told_of_the_other(given: Given) -> None:
    history = given(DECIDER, [created()]).when(request(V2)).then([requested(V1, V2)])
    history.when(request(V3, "s2")).refused(SwapUnderWay, swap_id="s1", to=V2)


def test_a_rollback_and_the_completion_of_the_swap_end_the_same_in_both_orders(
    given: Given,
) -> None:
    pending = given(DECIDER, [created(), requested(V1, V2)])
    rollback_first = pending.when(RollBack()).then(
        [failed(V1, V2, "rolled_back"), rolled_back(V1, V2)]
    )
    rollback_first = rollback_first.when(complete()).then([])
    completion_first = pending.when(complete()).then([completed(V1, V2)])
    completion_first = completion_first.when(RollBack()).then([rolled_back(V1, V2)])
    assert rollback_first.state == completion_first.state


def test_a_rollback_and_an_alarm_about_the_same_version_go_back_once(given: Given) -> None:
    history = given(DECIDER, [created(), *swapped(V1, V2), *swapped(V2, V3)])
    history = history.when(RollBack()).then([rolled_back(V2, V3)])
    history.when(alarm()).then([alarmed(V2)])

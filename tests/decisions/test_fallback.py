"""Fallbacks: what they are spared, what they outlast, and when they stop being any."""

from __future__ import annotations

import pytest
from hypothesis import given as over
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.decisions.endpoint import (
    DECIDER,
    Command,
    Endpoint,
    InvalidPolicy,
    NothingToRollBack,
    RollBack,
)
from engine.decisions.policy import shared
from engine.routing import compile_policy, decide_route, fallbacks
from events import Event
from events.catalogue.endpoints import Policy, RolledBack
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
    created,
    failed,
    full,
    policy_set,
    request,
    requested,
    rolled_back,
    set_policy,
    split,
    swapped,
)
from tests.decisions.rollouts import (
    LAST,
    STEPS,
    abort,
    aborted,
    advance,
    advanced,
    after,
    promote_fully,
    start,
    started,
)
from tests.decisions.rollouts import completed as rolled_out
from tests.decisions.rollouts import shared as stepped


def backed(policy: Policy, *fallback: str) -> Policy:
    return replace(policy, fallback=fallback)


def returned(to: str, *losers: str, keeps: tuple[str, ...] = (), reason: str = "") -> RolledBack:
    return replace(rolled_back(to, *losers, reason=reason), policy=backed(full(to), *keeps))


def state_of(history: History) -> Endpoint:
    state: Endpoint = history.state
    return state


# ------------------------------------------------------------------------------- What they are not


def test_a_fallback_stays_resident_and_takes_no_traffic(given: Given) -> None:
    policy = backed(full(V1), V2, V3)
    state = given(DECIDER, [created()]).when(set_policy(policy)).then([policy_set(policy)]).state
    assert state.routed_versions == state.pinned_versions == {V1, V2, V3}
    assert (state.active, state.newest, state.arrivals) == (V1, V1, (V1,))


def test_a_fallback_is_nothing_to_roll_back_to_or_from(given: Given) -> None:
    history = given(DECIDER, [created(), policy_set(backed(full(V1), V2))])
    history.when(RollBack()).refused(NothingToRollBack, active=V1)


def test_an_alarm_about_a_fallback_moves_nothing(given: Given) -> None:
    history = given(DECIDER, [created(), *swapped(V1, V3), policy_set(backed(full(V3), V2))])
    history = history.when(alarm(version=V2)).then([alarmed(V2)])
    assert state_of(history).policy == backed(full(V3), V2)


def test_a_rollout_begins_where_one_version_takes_all_traffic_whatever_backs_it(
    given: Given,
) -> None:
    history = given(DECIDER, [created(), policy_set(backed(full(V1), V3, V1))])
    history.when(start()).then([started(policy=backed(stepped(5), V3, V1))])


def test_a_policy_that_names_a_fallback_twice_is_refused(given: Given) -> None:
    outcome = given(DECIDER, [created()]).when(set_policy(backed(full(V1), V2, V2)))
    outcome.refused(InvalidPolicy)
    assert outcome.fields == {"fallback[1]": "occurs twice"}


def test_changing_fallbacks_alone_is_a_policy_of_its_own(given: Given) -> None:
    history = given(DECIDER, [created()])
    for policy in (backed(full(V1), V2, V3), backed(full(V1), V3, V2), full(V1)):
        history = history.when(set_policy(policy)).then([policy_set(policy)])
        history = history.when(set_policy(policy)).then([])
    assert state_of(history).pinned_versions == {V1}


# ------------------------------------------------------------------------------ What they outlast


def test_fallbacks_outlast_a_swap_also_to_one_of_them(given: Given) -> None:
    history = given(DECIDER, [created(), policy_set(backed(full(V1), V2, V3)), requested(V1, V2)])
    moved = replace(completed(V1, V2), policy=backed(full(V2), V2, V3))
    state = history.when(complete()).then([moved]).state
    assert (state.active, state.previous) == (V2, V1)
    assert state.pinned_versions == {V1, V2, V3}


def test_fallbacks_outlast_a_rollout_to_its_end(given: Given) -> None:
    history = given(DECIDER, [created(), policy_set(backed(full(V1), V1, V3))])
    history = after(history, start())
    for step in range(LAST):
        policy = backed(stepped(STEPS[step + 1].weight), V1, V3)
        history = history.when(advance(step)).then([advanced(step + 1, policy=policy)])
    done = rolled_out(policy=backed(full(V2), V1, V3))
    state = history.when(advance(LAST)).then([done]).state
    assert (state.active, state.previous) == (V2, V1)


def test_fallbacks_outlast_a_promotion(given: Given) -> None:
    history = given(DECIDER, [created(), policy_set(backed(full(V1), V3)), *after_start(V3)])
    history.when(promote_fully()).then([rolled_out("promoted", policy=backed(full(V2), V3))])


def after_start(*fallback: str) -> tuple[Event, ...]:
    return (started(policy=backed(stepped(5), *fallback)),)


# ------------------------------------------------------------------- When they stop being any


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ([*swapped(V1, V2), policy_set(backed(full(V2), V2))], returned(V1, V2)),
        (
            [*swapped(V1, V2), policy_set(backed(full(V2), V3, V2, V1))],
            returned(V1, V2, keeps=(V3, V1)),
        ),
        ([policy_set(backed(canary(V1, V2), V2, V3))], returned(V1, V2, keeps=(V3,))),
        ([policy_set(backed(split(split={V2: 1, V3: 1}), V2, V3))], returned(V1, V2, V3)),
        (
            [*swapped(V1, V2), policy_set(backed(canary(V2, V3), V1, V3))],
            returned(V2, V3, keeps=(V1,)),
        ),
    ],
)
def test_what_is_rolled_back_from_answers_for_nobody_any_more(
    given: Given, before: list[Event], expected: RolledBack
) -> None:
    history = given(DECIDER, [created(), *before]).when(RollBack()).then([expected])
    state = state_of(history)
    assert state.pinned_versions == {state.active, *expected.policy.fallback}
    history.when(RollBack()).then([])


def test_what_a_swap_was_about_to_bring_is_no_fallback_after_a_rollback(given: Given) -> None:
    history = given(DECIDER, [created(), policy_set(backed(full(V1), V2, V3))])
    history = history.when(request(V2)).then([requested(V1, V2)])
    history.when(RollBack()).then([failed(V1, V2, "rolled_back"), returned(V1, V2, keeps=(V3,))])


@pytest.mark.parametrize("step", range(LAST + 1))
def test_the_candidate_of_an_aborted_rollout_is_no_fallback(given: Given, step: int) -> None:
    history = given(DECIDER, [created(), policy_set(backed(full(V1), V2, V1, V3))])
    history = after(history, start())
    for reached in range(step):
        history = after(history, advance(reached))
    history = history.when(abort()).then(
        [
            aborted("aborted", step),
            returned(V1, V2, keeps=(V1, V3), reason="rollout aborted"),
        ]
    )
    assert state_of(history).pinned_versions == {V1, V3}


def test_an_alarm_about_the_newest_version_ends_it_as_a_fallback_too(given: Given) -> None:
    history = given(DECIDER, [created(), *swapped(V1, V2), policy_set(backed(full(V2), V2, V3))])
    why = "critical alert: error_rate"
    history.when(alarm()).then([alarmed(V2), returned(V1, V2, keeps=(V3,), reason=why)])


def test_whoever_sets_a_policy_may_name_it_again(given: Given) -> None:
    history = given(DECIDER, [created(), *swapped(V1, V2), rolled_back(V1, V2)])
    again = backed(full(V1), V2)
    history = history.when(set_policy(again)).then([policy_set(again)])
    history.when(RollBack()).then([])


# -------------------------------------------------------------------- Rollouts with fallbacks, any

_versions = st.sampled_from([V1, V2, V3])
_fallbacks = st.lists(_versions, max_size=3, unique=True).map(tuple)
_keys = st.text(max_size=12)


@over(fallback=_fallbacks, passed=st.integers(0, LAST + 1), key=_keys)
def test_no_request_reaches_a_candidate_that_was_rolled_back(
    fallback: tuple[str, ...], passed: int, key: str
) -> None:
    """Neither by the split nor by a fallback, at whatever step the rollout was, or completed."""
    history = History(DECIDER, (created(), policy_set(backed(full(V1), *fallback))))
    commands: list[Command] = [start(), *(advance(step) for step in range(passed))]
    for command in commands:
        history = after(history, command)
        assert _asked(state_of(history).policy, key) >= set(fallback)
    rolled = state_of(after(history, RollBack()))
    assert _asked(rolled.policy, key) == {V1, *fallback} - {V2}


@over(fallback=_fallbacks, weight=st.sampled_from([0.0, 5.0, 50.0, 100.0]), key=_keys)
def test_fallbacks_change_no_choice(fallback: tuple[str, ...], weight: float, key: str) -> None:
    plain = shared(V1, V2, weight, like=full(V1))
    backing = shared(V1, V2, weight, like=backed(full(V1), *fallback))
    assert _chosen(plain, key) == _chosen(backing, key)


def _asked(policy: Policy, key: str) -> set[str]:
    """Every version that a request may be sent to, however many fail."""
    table = compile_policy(policy, salt="acme/chat", position=1)
    decision = decide_route(table, key, 0, {})
    return {decision.version, *fallbacks(table, decision)}


def _chosen(policy: Policy, key: str) -> str:
    table = compile_policy(policy, salt="acme/chat", position=1)
    return decide_route(table, key, 0, {}).version

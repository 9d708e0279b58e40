"""What can happen to an endpoint: created, split, swapped."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.decisions.endpoint import (
    DECIDER,
    ClearAlert,
    Command,
    EndpointExists,
    FailSwap,
    InvalidPolicy,
    RollBack,
    SwapUnderWay,
    UnknownEndpoint,
    UnknownVersions,
    VersionNotResident,
)
from engine.decisions.under_way import TEXT_CHARS_MAX
from events.catalogue.endpoints import Policy
from switchback.testing import Given
from tests.decisions.endpoints import (
    ALL,
    V1,
    V2,
    V3,
    alarm,
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
    set_policy,
    split,
    swapped,
)

RULE = {"name": "beta", "when": {"attributes": {"tier": "beta"}}, "split": {V2: 100}}


def test_an_endpoint_begins_with_all_traffic_on_one_version(given: Given) -> None:
    history = given(DECIDER).when(create()).then([created()])
    state = history.state
    assert (state.model, state.active, state.previous) == ("fraud", V1, None)
    assert state.routed_versions == state.pinned_versions == {V1}
    history.when(create()).then([])


def test_creating_it_again_changes_nothing_even_after_it_moved(given: Given) -> None:
    given(DECIDER, [created(), *swapped(V1, V2)]).when(create()).then([])


@pytest.mark.parametrize("command", [create(V2), replace(create(), model="mail")])
def test_a_name_is_never_given_to_another_endpoint(given: Given, command: Command) -> None:
    given(DECIDER, [created()]).when(command).refused(
        EndpointExists, model="fraud", version=V1, code="conflict"
    )


def test_an_endpoint_needs_a_registered_version(given: Given) -> None:
    outcome = given(DECIDER).when(create(registered=frozenset({V2})))
    outcome.refused(UnknownVersions, versions=frozenset({V1}), code="invalid")
    assert list(outcome.fields) == ["version"]


def test_an_endpoint_needs_a_resident_version(given: Given) -> None:
    given(DECIDER).when(create(resident=frozenset({V2}))).refused(
        VersionNotResident, versions=frozenset({V1}), code="conflict"
    )


@pytest.mark.parametrize(
    "command",
    [
        set_policy(full(V1)),
        request(V2),
        complete(),
        FailSwap(swap_id="s1", reason="timeout"),
        RollBack(),
        alarm(),
        ClearAlert(alert_id="a1"),
    ],
)
def test_nothing_can_be_done_to_an_endpoint_that_does_not_exist(
    given: Given, command: Command
) -> None:
    given(DECIDER).when(command).refused(UnknownEndpoint, code="not_found")


# ------------------------------------------------------------------------------------------ Policy


def test_a_policy_is_set_once(given: Given) -> None:
    policy = canary(V1, V2)
    history = given(DECIDER, [created()]).when(set_policy(policy)).then([policy_set(policy)])
    assert history.state.active == V1
    assert history.state.newest == V2
    history.when(set_policy(policy)).then([])


def test_a_policy_without_a_meaning_is_refused_field_by_field(given: Given) -> None:
    rule = {"name": "r", "when": {"days": ["mon"], "timezone": "Mars/Olympus"}, "split": {V1: 1}}
    outcome = given(DECIDER, [created()]).when(set_policy(split(split={V1: -1}, rules=[rule])))
    outcome.refused(InvalidPolicy)
    assert outcome.fields == {
        "split.1.0.0": "must be a finite number, 0 or more",
        "rules[0].when.timezone": "is not an IANA time zone",
    }


@pytest.mark.parametrize(
    ("policy", "path"),
    [
        (split(split={V1: 100, "9.0.0": 0}), "split.9.0.0"),
        (split(split={V1: 1}, rules=[{**RULE, "split": {"9.0.0": 1}}]), "rules[0].split.9.0.0"),
        (split(split={V1: 1}, shadow=[{"version": "9.0.0"}]), "shadow[0].version"),
        (split(split={V1: 1}, fallback=[V2, "9.0.0"]), "fallback[1]"),
    ],
)
def test_every_version_a_policy_names_is_registered(
    given: Given, policy: Policy, path: str
) -> None:
    outcome = given(DECIDER, [created()]).when(set_policy(policy))
    outcome.refused(UnknownVersions, versions=frozenset({"9.0.0"}))
    assert list(outcome.fields) == [path]


@pytest.mark.parametrize(
    "policy",
    [
        canary(V1, V2),
        split(split={V1: 1}, rules=[RULE]),
        split(split={V1: 1}, shadow=[{"version": V2}]),
        split(split={V1: 1}, fallback=[V1, V2]),
    ],
)
def test_every_version_that_may_get_requests_is_resident(given: Given, policy: Policy) -> None:
    command = set_policy(policy, resident=frozenset({V1, V3}))
    given(DECIDER, [created()]).when(command).refused(VersionNotResident, versions=frozenset({V2}))


def test_a_version_of_weight_zero_need_not_be_resident(given: Given) -> None:
    policy = split(split={V1: 100, V2: 0})
    command = set_policy(policy, resident=frozenset({V1}))
    given(DECIDER, [created()]).when(command).then([policy_set(policy)])


@pytest.mark.parametrize(
    ("policy", "active", "previous"),
    [
        (full(V2), V2, V1),
        (split(split={V1: 0, V2: 3}), V2, V1),
        (split(split={V2: 1}, rules=[RULE], shadow=[{"version": V1}]), V2, V1),
        (canary(V1, V2), V1, None),
        (split(split={V1: 1}, rules=[RULE]), V1, None),
        (split(split={V2: 1, V3: 1}), V1, None),
        (split(split={V1: 1}, sticky=False), V1, None),
        (split(split={V1: 1}, fallback=[V2]), V1, None),
        (split(split={V2: 1}, fallback=[V1]), V2, V1),
    ],
)
def test_only_a_version_with_all_traffic_becomes_active(
    given: Given, policy: Policy, active: str, previous: str | None
) -> None:
    state = given(DECIDER, [created()]).when(set_policy(policy)).then([policy_set(policy)]).state
    assert (state.active, state.previous) == (active, previous)


def test_the_active_version_is_pinned_while_others_have_its_traffic(given: Given) -> None:
    away = split(split={V2: 1}, shadow=[{"version": V3}], rules=[{**RULE, "split": {V3: 1}}])
    state = given(DECIDER, [created(), policy_set(away)]).state
    assert state.routed_versions == {V2, V3}
    assert state.pinned_versions == {V1, V2, V3}


def test_a_policy_supersedes_a_pending_swap(given: Given) -> None:
    policy = canary(V1, V2)
    history = given(DECIDER, [created(), requested(V1, V3)])
    history = history.when(set_policy(policy)).then(
        [failed(V1, V3, "superseded", "a policy was set"), policy_set(policy)]
    )
    history.when(complete()).then([])


# -------------------------------------------------------------------------------------------- Swap


def test_a_swap_moves_all_traffic_when_the_version_is_resident(given: Given) -> None:
    history = given(DECIDER, [created()]).when(request(V2)).then([requested(V1, V2)])
    assert history.state.routed_versions == {V1}
    assert history.state.pinned_versions == {V1, V2}
    history = history.when(complete()).then([completed(V1, V2)])
    state = history.state
    assert (state.active, state.previous, state.swap) == (V2, V1, None)
    assert state.routed_versions == {V2}
    assert state.pinned_versions == {V1, V2}


def test_asking_again_for_a_swap_changes_nothing(given: Given) -> None:
    pending = given(DECIDER, [created(), requested(V1, V2)])
    pending.when(request(V2)).then([])
    pending.when(request(V2, swap_id="s2")).then([])
    given(DECIDER, [created(), *swapped(V1, V2)]).when(request(V2, swap_id="s2")).then([])


def test_one_swap_at_a_time(given: Given) -> None:
    given(DECIDER, [created(), requested(V1, V2)]).when(request(V3, swap_id="s2")).refused(
        SwapUnderWay, swap_id="s1", to=V2, code="conflict"
    )


def test_a_swap_needs_a_registered_version(given: Given) -> None:
    outcome = given(DECIDER, [created()]).when(request("9.0.0"))
    outcome.refused(UnknownVersions, versions=frozenset({"9.0.0"}))
    assert list(outcome.fields) == ["to"]


def test_a_swap_is_asked_for_before_the_version_is_resident_but_not_completed(
    given: Given,
) -> None:
    history = given(DECIDER, [created(), requested(V1, V2)])
    history = history.when(complete(resident=frozenset({V1, V3}))).refused(
        VersionNotResident, versions=frozenset({V2})
    )
    assert history.state.routed_versions == {V1}


def test_a_swap_ends_a_canary_whichever_side_it_takes(given: Given) -> None:
    shared = given(DECIDER, [created(), policy_set(canary(V1, V2))])
    for version, previous in ((V1, None), (V2, V1)):
        history = shared.when(request(version)).then([requested(V1, version)])
        history = history.when(complete()).then([completed(V1, version)])
        assert (history.state.active, history.state.previous) == (version, previous)


def test_a_swap_keeps_stickiness_and_drops_rules_and_shadows(given: Given) -> None:
    before = split(
        split={V1: 1}, sticky=False, rules=[{**RULE, "split": {V1: 1}}], shadow=[{"version": V3}]
    )
    history = given(DECIDER, [created(), policy_set(before), requested(V1, V2)])
    after = history.when(complete()).then(
        [replace(completed(V1, V2), policy=replace(full(V2), sticky=False))]
    )
    assert after.state.routed_versions == {V2}


@pytest.mark.parametrize("reason", ["load_failed", "timeout"])
def test_a_swap_that_fails_leaves_traffic_where_it_was(given: Given, reason: str) -> None:
    command = FailSwap(swap_id="s1", reason=reason, detail="why")  # type: ignore[arg-type]
    history = given(DECIDER, [created(), requested(V1, V2)])
    history = history.when(command).then([failed(V1, V2, reason, "why")])
    state = history.state
    assert (state.active, state.previous, state.swap) == (V1, None, None)
    assert state.pinned_versions == {V1}
    history.when(command).then([])


def test_a_long_story_about_a_failure_is_cut(given: Given) -> None:
    command = FailSwap(swap_id="s1", reason="timeout", detail="x" * 10_000)
    given(DECIDER, [created(), requested(V1, V2)]).when(command).then(
        [failed(V1, V2, "timeout", "x" * TEXT_CHARS_MAX)]
    )


@pytest.mark.parametrize("end", [completed(V1, V2), failed(V1, V2, "timeout")])
def test_a_swap_that_has_ended_stays_as_it_ended(given: Given, end: object) -> None:
    history = given(DECIDER, [created(), requested(V1, V2), end])  # type: ignore[list-item]
    history.when(complete()).then([])
    history.when(FailSwap(swap_id="s1", reason="load_failed")).then([])


def test_the_end_of_an_earlier_swap_does_not_touch_the_pending_one(given: Given) -> None:
    history = given(
        DECIDER, [created(), requested(V1, V2), failed(V1, V2, "timeout"), requested(V1, V3, "s2")]
    )
    history.when(complete("s1", resident=ALL)).then([])
    history.when(FailSwap(swap_id="s1", reason="timeout")).then([])
    assert history.state.swap is not None

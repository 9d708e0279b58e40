"""Rollback: always legal when it must be, always wins, never goes back twice; and the alerts that
press it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.decisions.alert import KIND_CHARS_MAX, OPEN_ALERTS_MAX
from engine.decisions.endpoint import (
    DECIDER,
    ClearAlert,
    InvalidAlert,
    NothingToRollBack,
    RaiseAlert,
    RollBack,
    open_alert,
)
from engine.decisions.under_way import TEXT_CHARS_MAX
from events import Event
from events.catalogue.endpoints import AlertCleared
from switchback.testing import Given
from tests.decisions.endpoints import (
    V1,
    V2,
    V3,
    alarm,
    alarmed,
    canary,
    complete,
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
    warn,
    warned,
)
from tests.decisions.rollouts import after

CRITICAL = "critical alert: error_rate"


@pytest.mark.parametrize(
    ("before", "to", "losers"),
    [
        (swapped(V1, V2), V1, (V2,)),
        ([policy_set(full(V2))], V1, (V2,)),
        ([policy_set(canary(V1, V2))], V1, (V2,)),
        ([policy_set(split(split={V2: 1, V3: 1}))], V1, (V2, V3)),
        ([*swapped(V1, V2), policy_set(canary(V2, V3))], V2, (V3,)),
        ([*swapped(V1, V2), policy_set(canary(V1, V2))], V2, (V1,)),
        ([*swapped(V1, V2), *swapped(V2, V3)], V2, (V3,)),
        ([*swapped(V1, V2), *swapped(V2, V1)], V2, (V1,)),
        ([*swapped(V1, V2), policy_set(canary(V2, V3)), policy_set(full(V2))], V1, (V2,)),
    ],
)
def test_a_rollback_returns_to_the_last_version_that_carried_all_traffic(
    given: Given, before: list[Event], to: str, losers: tuple[str, ...]
) -> None:
    history = given(DECIDER, [created(), *before])
    assert history.state.rollback_target == to
    assert to in history.state.pinned_versions
    history = history.when(RollBack(reason="errors")).then(
        [rolled_back(to, *losers, reason="errors")]
    )
    assert history.state.active == to
    assert history.state.pinned_versions == {to}


@pytest.mark.parametrize(
    "before",
    [
        swapped(V1, V2),
        [*swapped(V1, V2), *swapped(V2, V3)],
        [*swapped(V1, V2), policy_set(canary(V2, V3))],
        [*swapped(V1, V2), requested(V2, V3, "s2")],
    ],
)
def test_two_operators_who_press_at_once_go_back_once(given: Given, before: list[Event]) -> None:
    history = given(DECIDER, [created(), *before])
    outcome = history.when(RollBack(reason="mine"))
    assert not isinstance(outcome.decided, Exception)
    history = outcome.then(outcome.decided)
    history.when(RollBack(reason="mine too")).then([])


def test_after_a_rollback_something_else_must_take_traffic_first(given: Given) -> None:
    history = given(DECIDER, [created(), *swapped(V1, V2), *swapped(V2, V3), rolled_back(V2, V3)])
    history.when(RollBack()).then([])
    less_sticky = split(split={V2: 1}, sticky=False, shadow=[{"version": V1}])
    history = history.when(set_policy(less_sticky)).then([policy_set(less_sticky)])
    history = history.when(RollBack()).then([])
    history = history.when(set_policy(canary(V2, V1))).then([policy_set(canary(V2, V1))])
    history.when(RollBack()).then([rolled_back(V2, V1)])


def test_a_version_that_was_rolled_back_from_is_no_target(given: Given) -> None:
    bad = [created(), *swapped(V1, V2), rolled_back(V1, V2)]
    history = given(DECIDER, [*bad, *swapped(V1, V3)])
    history.when(RollBack()).then([rolled_back(V1, V3)])


def test_unless_a_swap_gives_it_all_traffic_again(given: Given) -> None:
    again = [created(), *swapped(V1, V2), rolled_back(V1, V2), *swapped(V1, V2)]
    given(DECIDER, [*again, *swapped(V2, V3)]).when(RollBack()).then([rolled_back(V2, V3)])


def test_the_only_version_there_ever_was_cannot_be_rolled_back(given: Given) -> None:
    for policy in (full(V1), split(split={V1: 1}, shadow=[{"version": V2}])):
        history = given(DECIDER, [created(), policy_set(policy)])
        history.when(RollBack()).refused(NothingToRollBack, active=V1, code="conflict")


def test_a_rollback_wins_over_a_pending_swap_and_the_swap_stays_failed(given: Given) -> None:
    history = given(DECIDER, [created(), requested(V1, V2)])
    history = history.when(RollBack(reason="no")).then(
        [failed(V1, V2, "rolled_back", "no"), rolled_back(V1, V2, reason="no")]
    )
    assert history.state.pinned_versions == {V1}
    history = history.when(complete()).then([])
    history.when(RollBack()).then([])


def test_a_rollback_ends_at_the_same_version_whether_it_beats_the_swap_or_not(
    given: Given,
) -> None:
    pending = given(DECIDER, [created(), *swapped(V1, V2), requested(V2, V3, "s2")])
    before = pending.when(RollBack()).then(
        [failed(V2, V3, "rolled_back", swap_id="s2"), rolled_back(V2, V3)]
    )
    outcome = pending.when(complete("s2"))
    assert not isinstance(outcome.decided, Exception)
    after = outcome.then(outcome.decided).when(RollBack()).then([rolled_back(V2, V3)])
    assert before.state == after.state


def test_a_rollback_ends_a_swap_and_a_canary_together(given: Given) -> None:
    history = given(DECIDER, [created(), policy_set(canary(V1, V2)), requested(V1, V3)])
    history.when(RollBack()).then([failed(V1, V3, "rolled_back"), rolled_back(V1, V2, V3)])


def test_a_rollback_keeps_stickiness_and_drops_rules_and_shadows(given: Given) -> None:
    rule = {"name": "beta", "when": {"attributes": {"tier": "beta"}}, "split": {V2: 100}}
    before = split(split={V1: 1}, sticky=False, rules=[rule], shadow=[{"version": V3}])
    given(DECIDER, [created(), policy_set(before)]).when(RollBack()).then(
        [replace(rolled_back(V1, V2), policy=replace(full(V1), sticky=False))]
    )


def test_a_long_story_does_not_stop_a_rollback(given: Given) -> None:
    given(DECIDER, [created(), *swapped(V1, V2)]).when(RollBack(reason="x" * 1_000_000)).then(
        [rolled_back(V1, V2, reason="x" * TEXT_CHARS_MAX)]
    )


# ------------------------------------------------------------------------------------------ Alerts


def test_a_warning_moves_nothing(given: Given) -> None:
    history = given(DECIDER, [created(), *swapped(V1, V2)])
    history.when(warn()).then([warned(V2)]).when(warn()).then([])


@pytest.mark.parametrize(
    ("before", "newest", "target"),
    [
        (swapped(V1, V2), V2, V1),
        ([policy_set(canary(V1, V2))], V2, V1),
        ([*swapped(V1, V2), policy_set(canary(V2, V3))], V3, V2),
        ([*swapped(V1, V2), policy_set(canary(V2, V1))], V1, V2),
    ],
)
def test_a_critical_alert_on_the_newest_version_rolls_back_in_the_same_append(
    given: Given, before: list[Event], newest: str, target: str
) -> None:
    history = given(DECIDER, [created(), *before]).when(alarm())
    after = history.then([alarmed(newest), rolled_back(target, newest, reason=CRITICAL)])
    assert [alert.version for alert in after.state.alerts] == [newest]
    after.when(alarm()).then([])


@pytest.mark.parametrize(
    "before",
    [
        [],
        [*swapped(V1, V2), rolled_back(V1, V2)],
        [requested(V1, V2)],
    ],
)
def test_a_critical_alert_on_the_last_good_version_is_told_and_moves_nothing(
    given: Given, before: list[Event]
) -> None:
    history = given(DECIDER, [created(), *before]).when(alarm()).then([alarmed(V1)])
    assert history.state.active == V1
    history.when(alarm()).then([])


def test_a_second_alarm_about_the_same_incident_does_not_go_back_twice(given: Given) -> None:
    history = given(DECIDER, [created(), *swapped(V1, V2), *swapped(V2, V3)])
    history = history.when(alarm()).then([alarmed(V3), rolled_back(V2, V3, reason=CRITICAL)])
    history = history.when(alarm("a2", kind="latency")).then([alarmed(V2, "a2", "latency")])
    history.when(RollBack()).then([])


def test_a_critical_alert_while_a_swap_is_pending_goes_to_the_version_before_and_ends_the_swap(
    given: Given,
) -> None:
    history = given(DECIDER, [created(), *swapped(V1, V2), requested(V2, V3, "s2")])
    history.when(alarm()).then(
        [
            alarmed(V2),
            failed(V2, V3, "rolled_back", CRITICAL, swap_id="s2"),
            rolled_back(V1, V2, V3, reason=CRITICAL),
        ]
    )


def test_the_same_alert_from_another_watcher_is_no_news(given: Given) -> None:
    history = given(DECIDER, [created(), warned(V1)])
    history.when(warn("a2")).then([])
    history.when(warn("a2", kind="latency")).then([warned(V1, "a2", "latency")])


def test_whoever_raises_an_alert_finds_the_one_that_says_so(given: Given) -> None:
    def found(command: RaiseAlert, *before: Event) -> str | None:
        history = after(given(DECIDER, [created(), *swapped(V1, V2), *before]), command)
        alert = open_alert(history.state, command)
        return None if alert is None else alert.alert_id

    assert found(warn("a1")) == "a1"
    assert found(warn("a2"), warned(V2)) == "a1"
    assert found(warn("a2"), alarmed(V2)) == "a1"
    assert found(alarm("a2", version=V2), warned(V2)) == "a2"
    assert found(warn("a2"), warned(V1), warned(V2, "a2", "latency")) == "a2"
    assert found(warn("a3", version=V1), warned(V1), warned(V2, "a2")) == "a1"
    calm = given(DECIDER, [created(), warned(V1, kind="latency")]).state
    assert open_alert(calm, warn("a2")) is None


def test_an_alert_that_gets_worse_is_news(given: Given) -> None:
    history = given(DECIDER, [created(), *swapped(V1, V2), warned(V2)])
    history.when(alarm("a2")).then([alarmed(V2, "a2"), rolled_back(V1, V2, reason=CRITICAL)])


def test_an_alert_that_gets_better_is_no_news(given: Given) -> None:
    given(DECIDER, [created(), alarmed(V1)]).when(warn("a2")).then([])


def test_an_alert_about_another_version_is_news(given: Given) -> None:
    history = given(DECIDER, [created(), warned(V1), *swapped(V1, V2)])
    history.when(warn("a2")).then([warned(V2, "a2")])


def test_an_old_alarm_does_not_protect_a_version_that_is_tried_again(given: Given) -> None:
    again = [created(), policy_set(canary(V1, V2)), alarmed(V2), rolled_back(V1, V2)]
    history = given(DECIDER, [*again, policy_set(canary(V1, V2))])
    history = history.when(alarm("a2")).then(
        [alarmed(V2, "a2"), rolled_back(V1, V2, reason=CRITICAL)]
    )
    history.when(alarm("a2")).then([])


def test_a_version_under_a_critical_alert_is_not_good(given: Given) -> None:
    carried = [created(), *swapped(V1, V2), rolled_back(V1, V2), *swapped(V1, V3)]
    shared = given(DECIDER, [*carried, alarmed(V3), policy_set(canary(V3, V2))])
    assert shared.state.rollback_target == V1
    cleared = given(DECIDER, [*shared.events, AlertCleared(alert_id="a1")])
    assert cleared.state.rollback_target == V3


def test_an_operator_is_never_told_no_because_of_an_alert(given: Given) -> None:
    canaried = given(DECIDER, [created(), alarmed(V1), policy_set(canary(V1, V2))])
    canaried.when(RollBack()).then([rolled_back(V1, V2)])
    moved = given(DECIDER, [created(), alarmed(V1), *swapped(V1, V2)])
    moved.when(RollBack()).then([rolled_back(V1, V2)])


@pytest.mark.parametrize("kind", ["", "x" * (KIND_CHARS_MAX + 1), "a\nb", "a\0"])
def test_an_alert_without_a_readable_kind_is_refused(given: Given, kind: str) -> None:
    outcome = given(DECIDER, [created()]).when(alarm(kind=kind))
    outcome.refused(InvalidAlert)
    assert list(outcome.fields) == ["kind"]


def test_an_alert_is_cleared_once(given: Given) -> None:
    clear = ClearAlert(alert_id="a1", reason="fixed")
    history = given(DECIDER, [created(), warned(V1), warned(V1, "a2", "latency")])
    history = history.when(clear).then([AlertCleared(alert_id="a1", reason="fixed")])
    assert [alert.alert_id for alert in history.state.alerts] == ["a2"]
    history.when(clear).then([])


def test_the_oldest_alert_gives_way_so_that_a_critical_one_is_never_turned_away(
    given: Given,
) -> None:
    crowd = [warned(V2, f"w{i}", f"kind {i}") for i in range(OPEN_ALERTS_MAX)]
    history = given(DECIDER, [created(), *swapped(V1, V2), *crowd]).when(alarm())
    after = history.then(
        [
            AlertCleared(alert_id="w0", reason="displaced by newer alerts"),
            alarmed(V2),
            rolled_back(V1, V2, reason=CRITICAL),
        ]
    )
    assert len(after.state.alerts) == OPEN_ALERTS_MAX


def test_a_swap_forward_is_the_way_out_when_there_is_no_way_back(given: Given) -> None:
    history = given(DECIDER, [created(), alarmed(V1)])
    history.when(request(V2)).then([requested(V1, V2)])

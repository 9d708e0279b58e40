"""What one gateway admits by what it knows."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from engine.budgets import Ledger, Refusal, Reservation
from engine.budgets.ledger import HEARTBEAT_SECONDS
from events.catalogue.budgets import KeyUse, TokensUsed

KEY = ("acme", "k1")
NOON = 1_800_000_000.0


def admitted(ledger: Ledger, tokens: int, *, budget: int = 100, now: float = NOON) -> Reservation:
    outcome = ledger.reserve(KEY, tokens, budget=budget, now=now)
    assert isinstance(outcome, Reservation), outcome
    return outcome


def refused(ledger: Ledger, tokens: int, *, budget: int = 100, now: float = NOON) -> Refusal:
    outcome = ledger.reserve(KEY, tokens, budget=budget, now=now)
    assert isinstance(outcome, Refusal)
    return outcome


def told(gateway: str, at: float, *, settled: int = 0, reserved: int = 0) -> TokensUsed:
    return TokensUsed(
        gateway=gateway,
        at=datetime.fromtimestamp(at, UTC),
        keys={"k1": KeyUse(settled=settled, reserved=reserved)},
    )


def test_what_is_reserved_cannot_be_had_twice() -> None:
    ledger = Ledger("g1")
    admitted(ledger, 60)
    assert refused(ledger, 41).retry_after_s == 1.0
    admitted(ledger, 40)


def test_what_was_not_used_can_be_had_at_once() -> None:
    ledger = Ledger("g1")
    admitted(ledger, 100).settle(30, now=NOON)
    admitted(ledger, 70)


def test_a_reservation_counts_once_whatever_it_is_told_later() -> None:
    ledger = Ledger("g1")
    reservation = admitted(ledger, 100)
    reservation.settle(30, now=NOON)
    reservation.settle(90, now=NOON)
    reservation.settle(0, now=NOON)
    assert ledger.standing(KEY, budget=100, now=NOON).remaining == 70
    assert ledger.report(now=NOON) == {"acme": {"k1": KeyUse(settled=30)}}


def test_a_reservation_that_was_not_used_leaves_nothing() -> None:
    ledger = Ledger("g1")
    admitted(ledger, 100).settle(0, now=NOON)
    assert ledger.standing(KEY, budget=100, now=NOON).remaining == 100
    assert ledger.report(now=NOON) == {}


@pytest.mark.parametrize("settled_at", [NOON, NOON + 0.999])
def test_settled_tokens_count_for_a_minute_and_at_most_a_second_more(settled_at: float) -> None:
    ledger = Ledger("g1")
    admitted(ledger, 100).settle(100, now=settled_at)
    refusal = refused(ledger, 1, now=settled_at + 59.999)
    assert refusal.retry_after_s is not None
    free_at = settled_at + 59.999 + refusal.retry_after_s
    assert settled_at + 60 <= free_at + 1e-3 <= settled_at + 61.001
    refused(ledger, 1, now=free_at - 0.01)
    admitted(ledger, 100, now=free_at + 0.01)


def test_a_refusal_says_when_enough_of_what_was_settled_counts_no_more() -> None:
    ledger = Ledger("g1")
    admitted(ledger, 50).settle(50, now=NOON)
    admitted(ledger, 40, now=NOON + 20).settle(40, now=NOON + 20)
    assert refused(ledger, 60, now=NOON + 30).retry_after_s == pytest.approx(31)
    assert refused(ledger, 61, now=NOON + 30).retry_after_s == pytest.approx(51)


def test_more_than_the_whole_budget_is_never_admitted() -> None:
    assert refused(Ledger("g1"), 101).retry_after_s is None
    assert refused(Ledger("g1"), 1, budget=0).retry_after_s is None


def test_what_took_more_than_it_was_taken_to_is_counted_whole() -> None:
    ledger = Ledger("g1")
    admitted(ledger, 10).settle(500, now=NOON)
    assert ledger.standing(KEY, budget=100, now=NOON).remaining == 0
    refused(ledger, 1, now=NOON + 59)
    admitted(ledger, 100, now=NOON + 61)


def test_another_budget_holds_from_the_next_request_on() -> None:
    ledger = Ledger("g1")
    first = admitted(ledger, 80)
    refused(ledger, 10, budget=50)
    admitted(ledger, 10, budget=90)
    first.settle(0, now=NOON)
    admitted(ledger, 40, budget=50)


def test_keys_and_tenants_have_budgets_of_their_own() -> None:
    ledger = Ledger("g1")
    admitted(ledger, 100)
    for key in (("acme", "k2"), ("other", "k1")):
        assert isinstance(ledger.reserve(key, 100, budget=100, now=NOON), Reservation)


def test_what_others_tell_counts_once_though_it_be_told_twice() -> None:
    ledger, id_ = Ledger("g1"), uuid4()
    for _ in range(2):
        ledger.fold(id_, "acme", told("g2", NOON, settled=40, reserved=20), now=NOON + 1)
    assert ledger.standing(KEY, budget=100, now=NOON + 1).remaining == 40


def test_own_reports_say_nothing_new_but_those_of_an_earlier_self_do() -> None:
    ledger = Ledger("g1-b")
    ledger.fold(uuid4(), "acme", told("g1-b", NOON, settled=40), now=NOON)
    assert ledger.standing(KEY, budget=100, now=NOON).remaining == 100
    ledger.fold(uuid4(), "acme", told("g1-a", NOON, settled=40), now=NOON)
    assert ledger.standing(KEY, budget=100, now=NOON).remaining == 60


def test_a_late_report_settles_but_does_not_bring_reservations_back() -> None:
    ledger = Ledger("g1")
    ledger.fold(uuid4(), "acme", told("g2", NOON + 2, reserved=0), now=NOON + 3)
    ledger.fold(uuid4(), "acme", told("g2", NOON, settled=10, reserved=50), now=NOON + 3)
    assert ledger.standing(KEY, budget=100, now=NOON + 3).remaining == 90


def test_what_is_told_after_a_minute_says_nothing_any_more() -> None:
    ledger = Ledger("g1")
    late = told("g2", NOON, settled=40, reserved=20)
    ledger.fold(uuid4(), "acme", late, now=NOON + 62)
    assert ledger.standing(KEY, budget=100, now=NOON + 62).remaining == 100


def test_reservations_of_a_gateway_that_went_silent_are_forgotten() -> None:
    ledger = Ledger("g1")
    ledger.fold(uuid4(), "acme", told("g2", NOON, reserved=100), now=NOON)
    refused(ledger, 1, now=NOON + 60)
    admitted(ledger, 100, now=NOON + 62)


def test_reservations_that_last_are_told_again_before_they_are_forgotten() -> None:
    ledger = Ledger("g1")
    admitted(ledger, 30)
    news = {"acme": {"k1": KeyUse(reserved=30)}}
    assert ledger.report(now=NOON) == news
    assert ledger.report(now=NOON + HEARTBEAT_SECONDS - 1) == {}
    assert ledger.report(now=NOON + HEARTBEAT_SECONDS) == news


def test_a_key_that_is_not_used_takes_no_memory() -> None:
    ledger = Ledger("g1")
    admitted(ledger, 30).settle(30, now=NOON)
    ledger.report(now=NOON)
    assert len(ledger.reserved()) == 1
    ledger.report(now=NOON + 62)
    assert not ledger.reserved()

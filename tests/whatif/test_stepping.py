"""The rule of the steps: what a verdict leads to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from engine.analysis.stepping import (
    WINDOWS_BEHIND_SECONDS,
    Abort,
    Action,
    Advance,
    Hold,
    Wait,
    next_action,
    settled_at,
)
from events.catalogue.endpoints import Analysis, Step

STEPS = (Step(weight=10, hold_s=60), Step(weight=50, hold_s=60))


def due(outcome: Any, **given: Any) -> Action:
    """In the first of two steps, whose hold is over, unless said otherwise."""
    on_inconclusive = given.pop("on_inconclusive", "hold")
    facts: dict[str, Any] = {"step": 0, "hold_over": True, "held": None, **given}
    return next_action(
        outcome, steps=STEPS, analysis=Analysis(on_inconclusive=on_inconclusive), **facts
    )


@pytest.mark.parametrize("hold_over", [True, False])
@pytest.mark.parametrize("held", [None, "inconclusive", "paused"])
@pytest.mark.parametrize("on_inconclusive", ["hold", "rollback", "promote"])
def test_a_failure_ends_the_rollout_at_once_whatever_its_state(
    hold_over: bool, held: Any, on_inconclusive: str
) -> None:
    assert due("fail", hold_over=hold_over, held=held, on_inconclusive=on_inconclusive) == Abort(
        reason="failed"
    )


@pytest.mark.parametrize("outcome", ["pass", "inconclusive"])
@pytest.mark.parametrize("on_inconclusive", ["hold", "rollback", "promote"])
def test_nothing_but_a_failure_ends_a_hold_or_a_pause(outcome: str, on_inconclusive: str) -> None:
    assert due(outcome, hold_over=False, on_inconclusive=on_inconclusive) == Wait()
    assert due(outcome, held="paused", on_inconclusive=on_inconclusive) == Wait()


def test_a_pass_leads_to_the_next_step_and_from_the_last_to_the_end() -> None:
    assert due("pass") == Advance(to_step=1, reason="passed")
    assert due("pass", step=1) == Advance(to_step=None, reason="passed")
    assert due("pass", held="inconclusive") == Advance(to_step=1, reason="passed")


def test_not_knowing_leads_to_what_the_analysis_says() -> None:
    assert due("inconclusive") == Hold(reason="inconclusive")
    assert due("inconclusive", on_inconclusive="rollback") == Abort(reason="inconclusive")
    promoted = due("inconclusive", on_inconclusive="promote", step=1)
    assert promoted == Advance(to_step=None, reason="inconclusive")


def test_what_is_held_is_not_held_again() -> None:
    assert due("inconclusive", held="inconclusive") == Wait()


def test_a_hold_is_settled_when_its_last_window_is_on_the_log() -> None:
    noon = datetime(2026, 3, 2, 12, tzinfo=UTC)
    assert settled_at(noon) == noon + timedelta(seconds=WINDOWS_BEHIND_SECONDS)

"""What a terminal shows of a rollout."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import pytest
from rich.console import Console

from switchback.cli.rollout_view import BAR_CELLS, hold_left, rollout_view, status_line
from tests.cli.rollouts import ERROR_RATE, NOW, rollout


def shown(*, width: int = 80, encoding: str = "utf-8", **members: Any) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=file, record=True, width=width)
    console.print(rollout_view(rollout(**members), now=NOW), highlight=False)
    return console.export_text()


def test_all_there_is_to_know_is_on_one_screen() -> None:
    text = shown()
    assert "chat  running  step 2 of 3, 0:00:42 of its hold left" in text
    assert "1.0.0 75 % " in text
    assert " 25 % 2.0.0" in text
    (row,) = [line for line in text.splitlines() if line.startswith("error_rate  ")]
    told = ("inconclusive", "9500 / 500", "+1.23% [-0.21, +3.45]", "3.5 of 40")
    assert " ".join(row.split()) == " ".join(("error_rate", *told))
    (row,) = [line for line in text.splitlines() if line.startswith("sample_ratio")]
    assert row.split()[-3:] == ["0.2", "of", "1000"]
    assert "may exceed the baseline's by 3.45%" in text
    assert "in the proportion" not in text  # what passes needs no reason
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize(
    ("weight", "cells"), [(0, 0), (0.1, 1), (25, 10), (50, 20), (99.9, 39), (100, 40)]
)
def test_the_bar_is_as_long_as_the_share_and_shows_every_share_there_is(
    weight: float, cells: int
) -> None:
    text = shown(weight=weight)
    assert (text.count("█"), text.count("░")) == (cells, BAR_CELLS - cells)


def test_a_terminal_without_such_characters_gets_others() -> None:
    text = shown(encoding="ascii")
    assert "#" * 10 in text
    assert text.isascii()


@pytest.mark.parametrize(
    ("members", "told"),
    [
        ({"state": "held", "held_reason": "paused", "hold_until": None}, "held (paused)"),
        ({"state": "aborted", "reason": "aborted", "detail": "slow"}, "aborted: slow"),
        ({"state": "aborted", "reason": "failed", "detail": None}, "aborted (failed)"),
        ({"state": "completed", "reason": "passed"}, "completed (passed)"),
    ],
)
def test_a_state_says_why_once(members: dict[str, Any], told: str) -> None:
    assert f"chat  {told}" in shown(**members)
    assert f"chat: {told}" in status_line(rollout(**members))


def test_a_hold_that_is_over_is_not_negative() -> None:
    assert hold_left(rollout(), now=NOW + timedelta(seconds=43)) == "its hold is over"
    assert hold_left(rollout(hold_until=None), now=NOW) is None


def test_a_limits_estimate_is_the_candidates_own_and_a_latency_is_in_milliseconds() -> None:
    limit = ERROR_RATE | {"metric": "max_error_rate", "baseline_samples": 0}
    ratio = ERROR_RATE | {"metric": "max_latency_ratio", "estimate": 1.5, "interval": [-1, 4]}
    text = shown(width=100, verdicts=[limit, {**ratio, "e_value": None}])
    assert "1.23% [-0.21, 3.45]" in text
    assert "+1.50 ms [-1.00, +4.00]" in text


def test_without_verdicts_there_is_no_table() -> None:
    assert "metric" not in shown(verdicts=[])


def test_one_line_says_state_step_share_and_verdicts() -> None:
    told = "chat: running; step 2 of 3; 2.0.0 25 %; error_rate inconclusive, sample_ratio pass"
    assert status_line(rollout()) == told

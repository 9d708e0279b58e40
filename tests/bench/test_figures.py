"""What the table says of the rounds it was given."""

from __future__ import annotations

import io

import msgspec
import pytest
from rich.console import Console

from switchback.bench import Goal, Machine, Report, table
from switchback.bench.figures import failures, percentile, row

QUIET = Machine(processors=2, load_before=0.3)


def shown(report: Report) -> str:
    out = io.StringIO()
    Console(file=out, width=160).print(table(report))
    return out.getvalue()


def test_ours_is_the_median_of_the_rounds_and_the_ratio_is_of_medians() -> None:
    measured = row("l", "rate", "/s", [900, 100, 1_000], ceilings=[2_000, 9_000, 1_800])
    assert (measured.ours, measured.ceiling, measured.ratio) == (900, 2_000, 0.45)
    assert (measured.goal, measured.reached) == (None, None)


@pytest.mark.parametrize(
    ("goal", "rounds", "reached"),
    [
        (Goal("at least", 1_000), [1_000], True),
        (Goal("at least", 1_000), [999], False),
        (Goal("at most", 100), [100], True),
        (Goal("at most", 100), [101], False),
    ],
)
def test_a_goal_is_reached_at_its_limit(goal: Goal, rounds: list[float], reached: bool) -> None:
    measured = row("l", "figure", "ms", rounds, goal=goal)
    assert measured.reached is reached
    assert Report(machine=QUIET, rows=(measured,)).reached is reached


def test_a_failure_in_any_round_counts() -> None:
    counted = failures("l", "failed", [0, 1, 0])
    assert (counted.ours, counted.reached) == (1, False)
    assert failures("l", "failed", [0, 0]).reached


@pytest.mark.parametrize(("percent", "value"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_a_percentile_is_a_value_that_was_seen(percent: float, value: float) -> None:
    assert percentile(range(100, 0, -1), percent) == value


def test_the_table_shows_spread_ceiling_ratio_goal_and_verdict() -> None:
    goal = Goal("at most", 100)
    text = shown(
        Report(
            machine=QUIET,
            rows=(row("visible", "p99", "ms", [120, 90, 130], ceilings=[60], goal=goal),),
        )
    )
    for part in (
        "visible",
        "120.00 ms",
        "90.00 ms to 130.00 ms",
        "60.00 ms",
        "2.00",
        "≤ 100",
        "no",
    ):
        assert part in text


def test_the_report_is_plain_data_for_programs() -> None:
    report = Report(
        machine=QUIET, rows=(row("l", "rate", "/s", [1, 2, 3], goal=Goal("at least", 2)),)
    )
    encoded = msgspec.json.decode(msgspec.json.encode(report))
    assert encoded["rows"][0]["ours"] == 2
    assert encoded["rows"][0]["goal"] == {"bound": "at least", "limit": 2}
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_the_table_says_when_the_machine_was_not_idle() -> None:
    measured = (row("l", "rate", "/s", [1]),)
    assert "others were at work" not in shown(Report(machine=QUIET, rows=measured))
    busy = Machine(processors=2, load_before=3.4)
    text = shown(Report(machine=busy, rows=measured))
    assert "load before the run 3.4" in text
    assert "others were at work" in text

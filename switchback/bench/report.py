"""The report as a table for people. `msgspec.json` writes it for programs."""

from __future__ import annotations

from typing import Final

from rich.table import Table

from switchback.bench.figures import Goal, Machine, Report, Row, Unit

_UNITS: Final[dict[Unit, str]] = {
    "/s": "/s",
    "s": " s",
    "ms": " ms",
    "us": " µs",
    "%": " %",
    "count": "",
    "requests": " requests",
    "times": " times",
    "bytes": " bytes",
}
_DIGITS: Final[dict[Unit, int]] = {
    "/s": 0,
    "s": 1,
    "count": 0,
    "requests": 0,
    "times": 1,
    "bytes": 0,
}
_SIGNS: Final = {"at least": "≥", "at most": "≤"}


def table(report: Report) -> Table:
    """A row a figure: the median, the spread of the rounds, ceiling, ratio and goal."""
    shown = Table(
        title="switchback bench",
        title_justify="left",
        header_style="bold",
        caption=_caption(report.machine),
        caption_justify="left",
    )
    for name in ("line", "figure"):
        shown.add_column(name)
    for name in ("ours", "rounds", "ceiling", "ratio", "goal", "reached"):
        shown.add_column(name, justify="right")
    before = None
    for row in report.rows:
        if before not in (None, row.line):
            shown.add_section()
        shown.add_row(*_cells(row, repeated=before == row.line))
        before = row.line
    return shown


def _caption(machine: Machine) -> str:
    caption = f"{machine.processors} processors, load before the run {machine.load_before:.1f}"
    if machine.busy:
        caption += ": others were at work, these figures are worse than they need be"
    return caption


def _cells(row: Row, *, repeated: bool) -> tuple[str, ...]:
    return (
        "" if repeated else row.line,
        row.what,
        f"[bold]{_value(row.ours, row.unit)}[/bold]",
        _spread(row),
        _value(row.ceiling, row.unit) if row.ceiling is not None else "",
        f"{row.ratio:.2f}" if row.ratio is not None else "",
        _goal(row.goal, row.unit) if row.goal is not None else "",
        _verdict(row.reached),
    )


def _value(value: float, unit: Unit) -> str:
    digits = _DIGITS.get(unit, 2)
    return f"{value:,.{digits}f}{_UNITS[unit]}"


def _spread(row: Row) -> str:
    if len(row.rounds) == 1 or row.unit == "count":
        return ""
    low, high = min(row.rounds), max(row.rounds)
    return f"{_value(low, row.unit)} to {_value(high, row.unit)}"


def _goal(goal: Goal, unit: Unit) -> str:
    return f"{_SIGNS[goal.bound]} {goal.limit:,g}{_UNITS[unit]}"


def _verdict(reached: bool | None) -> str:
    match reached:
        case None:
            return ""
        case True:
            return "[green]yes[/green]"
        case False:
            return "[red]no[/red]"

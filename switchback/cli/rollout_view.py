"""A rollout on a terminal: the split as a bar, where it stands, and what each metric says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

BAR_CELLS: Final = 40
_STYLES: Final = {
    "pass": "green",
    "fail": "bold red",
    "inconclusive": "yellow",
    "running": "cyan",
    "held": "yellow",
    "completed": "green",
    "aborted": "bold red",
}
_OWN_RATES: Final = frozenset({"max_error_rate", "max_latency_ms", "max_disagreement_rate"})
"""Of these the estimate is the candidate's own rate, not a difference."""
_MILLISECONDS: Final = frozenset({"max_latency_ratio"})


class SplitBar:
    """`1.0.0 ░░░░░░░███ 2.0.0`, in characters that the terminal has."""

    def __init__(self, baseline: str, candidate: str, *, weight: float) -> None:
        self._baseline = baseline
        self._candidate = candidate
        self._weight = weight

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        empty, full = ("-", "#") if options.ascii_only else ("░", "█")
        cells = round(self._weight / 100.0 * BAR_CELLS)
        if 0.0 < self._weight < 100.0:
            cells = min(max(cells, 1), BAR_CELLS - 1)
        yield Text.assemble(
            f"{self._baseline} {100.0 - self._weight:g} % ",
            (empty * (BAR_CELLS - cells), "dim"),
            (full * cells, "cyan"),
            f" {self._weight:g} % {self._candidate}",
        )


def rollout_view(rollout: Mapping[str, Any], *, now: datetime) -> RenderableType:
    """All of it."""
    state = rollout["state"]
    heading = Text.assemble(
        (f"{rollout['endpoint']}  ", "bold"),
        (_state(rollout), _STYLES[state]),
        f"  {_step(rollout)}",
    )
    left = hold_left(rollout, now=now)
    if left is not None:
        heading.append(f", {left}")
    heading.append(f"  {rollout['id']}", "dim")
    bar = SplitBar(rollout["baseline"], rollout["candidate"], weight=rollout["weight"])
    return Group(heading, bar, *_verdicts(rollout["verdicts"]))


def status_line(rollout: Mapping[str, Any]) -> str:
    """The same in one line, without what changes from second to second."""
    told = [f"{metric} {outcome}" for metric, outcome in outcomes(rollout).items()]
    share = f"{rollout['candidate']} {rollout['weight']:g} %"
    parts = (f"{rollout['endpoint']}: {_state(rollout)}", _step(rollout), share, ", ".join(told))
    return "; ".join(part for part in parts if part)


def outcomes(rollout: Mapping[str, Any]) -> dict[str, str]:
    """Metric -> pass, fail or inconclusive."""
    return {verdict["metric"]: verdict["outcome"] for verdict in rollout["verdicts"]}


def hold_left(rollout: Mapping[str, Any], *, now: datetime) -> str | None:
    """How long the step's hold lasts still; None when nothing is being waited for."""
    if rollout["hold_until"] is None:
        return None
    left_s = (datetime.fromisoformat(rollout["hold_until"]) - now).total_seconds()
    if left_s <= 0:
        return "its hold is over"
    return f"{timedelta(seconds=round(left_s))} of its hold left"


def _state(rollout: Mapping[str, Any]) -> str:
    why = rollout["held_reason"] or rollout["reason"]
    because = f" ({why})" if why not in (None, rollout["state"]) else ""
    detail = f": {rollout['detail']}" if rollout["detail"] else ""
    return f"{rollout['state']}{because}{detail}"


def _step(rollout: Mapping[str, Any]) -> str:
    return f"step {rollout['step'] + 1} of {len(rollout['steps'])}"


def _verdicts(verdicts: list[Mapping[str, Any]]) -> Iterator[RenderableType]:
    if not verdicts:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("metric", "verdict"):
        table.add_column(column, no_wrap=True)
    for column in ("samples", "estimate, interval", "e-value"):
        table.add_column(column, justify="right")
    for verdict in verdicts:
        table.add_row(*_row(verdict))
    yield table
    for verdict in verdicts:
        if verdict["outcome"] != "pass" and verdict.get("detail"):
            yield Text(f"{verdict['metric']}: {verdict['detail']}")


def _row(verdict: Mapping[str, Any]) -> Iterator[RenderableType]:
    outcome = verdict["outcome"]
    yield verdict["metric"]
    yield Text(outcome, _STYLES[outcome])
    yield f"{verdict['baseline_samples']} / {verdict['candidate_samples']}"
    yield Text(_estimate(verdict))
    e_value = verdict.get("e_value")
    yield f"{e_value:.3g} of {verdict['threshold']:g}" if e_value is not None else ""


def _estimate(verdict: Mapping[str, Any]) -> str:
    estimate, interval = verdict.get("estimate"), verdict.get("interval")
    if estimate is None:
        return ""
    metric = verdict["metric"]
    scale, unit = (1.0, " ms") if metric in _MILLISECONDS else (100.0, "%")
    sign = "" if metric in _OWN_RATES else "+"
    text = f"{estimate * scale:{sign}.2f}{unit}"
    if interval is not None:
        low, high = (f"{end * scale:{sign}.2f}" for end in interval)
        text += f" [{low}, {high}]"
    return text

"""A canary as it goes: a row for each step, what was asked for beside what clients saw."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from rich.console import RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from switchback.demo.canary import JSON, StepSeen, steps_in
from switchback.demo.watch import Watch

_STYLES: Final[Mapping[str, str]] = {
    "passed": "green",
    "failed": "bold red",
    "alert": "bold red",
    "held": "yellow",
}
JUDGED: Final = "error_rate"
"""The metric that is shown."""
CAPTION: Final = "more errors than the baseline, at most so many; an e-value of 20 is an alarm"


class Ramp:
    """The screen on which `switchback.cli.watching.watch` shows a rollout."""

    def __init__(self, live: Live, watch: Watch, *, title: str, started: JSON) -> None:
        self._live = live
        self._watch = watch
        self._title = title
        self._events = [started]
        self._rollout: JSON = {"verdicts": [], "state": "running"}

    def happened(self, event: JSON) -> None:
        if event["position"] > self._events[-1]["position"]:
            self._events.append(event)
        self._draw()

    def shown(self, rollout: JSON) -> None:
        self._rollout = rollout
        self._draw()

    def ended(self, events: Sequence[JSON]) -> None:
        """As the log tells it."""
        self._events = list(events)
        self._draw()

    def _draw(self) -> None:
        self._live.update(self._table(), refresh=True)

    def _table(self) -> RenderableType:
        table = Table(
            title=self._title, title_justify="left", caption=CAPTION, caption_justify="left"
        )
        table.add_column("step", justify="right")
        for column in (
            "clients saw",
            "lasted",
            "samples",
            "more errors",
            "at most",
            "e-value",
        ):
            table.add_column(column, justify="right")
        table.add_column("verdict")
        for step in steps_in(self._events, self._watch):
            table.add_row(*self._row(step))
        return table

    def _row(self, step: StepSeen) -> list[str | Text]:
        until = step.ended or time.time()
        sent = self._watch.between(step.began, until)
        mine = sum(request.version == self._candidate for request in sent)
        verdicts = step.verdicts if step.ended else self._rollout["verdicts"]
        outcome = step.outcome or self._rollout["state"]
        return [
            f"{step.weight:g} %",
            f"{mine / len(sent):.1%}" if sent else "",
            f"{until - step.began:.1f} s",
            *_evidence(verdicts),
            Text(outcome, _STYLES.get(outcome, "")),
        ]

    @property
    def _candidate(self) -> str:
        return str(self._events[0]["data"]["candidate"])


def _evidence(verdicts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The candidate's samples, by how much its rate is higher and may be, evidence of harm."""
    verdict = next((v for v in verdicts if v["metric"] == JUDGED), None)
    if verdict is None:
        return ["", "", "", ""]
    estimate, interval = verdict.get("estimate"), verdict.get("interval")
    e_value = verdict.get("e_value")
    return [
        str(verdict["candidate_samples"]),
        f"{estimate:+.1%}" if estimate is not None else "",
        f"{interval[1]:+.1%}" if interval else "",
        f"{e_value:.3g}" if e_value is not None else "",
    ]

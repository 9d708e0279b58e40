"""`what-if`: what recorded rollouts would have done under another policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from engine.whatif import Act, Course, WhatIf
from events.catalogue.endpoints import Policy
from events.event import Recorded
from switchback.cli.application import DONE, FAILED, MISUSED, app
from switchback.cli.failures import Failed
from switchback.cli.output import console, print_json, print_problem, print_rows
from switchback.cli.progress import progress
from switchback.cli.target import AsJson
from switchback.replaying.backtest import NotTried, Tried, back_test, logs_in
from switchback.replaying.memory import read_traffic_log
from switchback.replaying.whatif import (
    NothingRecorded,
    PolicyRefused,
    RolloutReport,
    read_policy_file,
    traffic_under,
    what_if,
)

_SHOWN_EVERY_LINES = 1_000
_ACT_COLUMNS = ("course", "after_s", "action", "step", "weight", "reason", "evidence")
_SERVED_COLUMNS = ("endpoint", "version", "recorded", "requests", "failed", "unknown")
_TRIED_COLUMNS = ("log", "rollout", "version_is", "recorded", "what_if", "requests", "result")


@app.command(name="what-if")
def what_if_verb(
    log: Path,
    /,
    *,
    policy: Annotated[Path, Parameter(help="A JSON file: steps and analysis, or a split.")],
    endpoint: Annotated[str | None, Parameter(help="Only of this endpoint.")] = None,
    rollout: Annotated[str | None, Parameter(help="Only this rollout.")] = None,
    as_json: AsJson = False,
) -> int:
    """Run the rollouts of a recorded log again under another policy; a folder is back-tested.

    A log is what `events export FILE --traffic` writes. The back-test fails when the policy would
    have let a bad version through.
    """
    try:
        other = read_policy_file(policy)
        if isinstance(other, Policy):
            if log.is_dir() or rollout is not None:
                print_problem("a split is asked of one log, and of no rollout")
                return MISUSED
            return _tell_traffic(log, other, endpoint=endpoint, as_json=as_json)
        if log.is_dir():
            return _back_test(log, other, endpoint=endpoint, rollout=rollout, as_json=as_json)
        return _tell_rollouts(log, other, endpoint=endpoint, rollout=rollout, as_json=as_json)
    except (PolicyRefused, NothingRecorded) as error:
        raise Failed(str(error)) from error


def _tell_rollouts(
    log: Path, policy: WhatIf, *, endpoint: str | None, rollout: str | None, as_json: bool
) -> int:
    reports = what_if(_read(log), policy, endpoint=endpoint, rollout=rollout)
    if as_json:
        print_json({"log": str(log), "rollouts": reports})
        return DONE
    for report in reports:
        name = f"{report.tenant}/{report.endpoint} {report.rollout}"
        title = f"{name}: {report.baseline} -> {report.candidate}, {report.started}"
        acts = [*_acts("recorded", report.recorded), *_acts("what if", report.what_if)]
        print_rows(acts, _ACT_COLUMNS, title=title)
        _say(f"recorded: {_course(report.recorded)}")
        _say(f"what if:  {_course(report.what_if)}{_compared(report)}")
    return DONE


def _tell_traffic(log: Path, policy: Policy, *, endpoint: str | None, as_json: bool) -> int:
    reports = traffic_under(_read(log), policy, endpoint=endpoint)
    if as_json:
        print_json({"log": str(log), "endpoints": reports})
        return DONE
    rows = [
        {
            "endpoint": f"{report.tenant}/{report.endpoint}",
            "version": version,
            **msgspec.to_builtins(served),
        }
        for report in reports
        for version, served in report.traffic.versions.items()
    ]
    print_rows(rows, _SERVED_COLUMNS, title="Requests each version would have served")
    if any(report.traffic.estimated for report in reports):
        _say(
            "estimated from the recorded rates; unknown: the version had no request in that second"
        )
    return DONE


def _back_test(
    folder: Path, policy: WhatIf, *, endpoint: str | None, rollout: str | None, as_json: bool
) -> int:
    tried: list[Tried] = []
    others: list[NotTried] = []
    logs = logs_in(folder)
    with progress("testing", total=len(logs)) as show:
        found = back_test(logs, policy, endpoint=endpoint, rollout=rollout)
        for done, results in enumerate(found, start=1):
            tried.extend(each for each in results if isinstance(each, Tried))
            others.extend(each for each in results if isinstance(each, NotTried))
            show(done)
    broken = [each for each in others if each.broken]
    if not tried and not broken:
        raise NothingRecorded(f"no log of {folder} holds a rollout with traffic")
    _tell_back_test(tried, others, as_json=as_json)
    for log in broken:
        print_problem(f"{log.log}: {log.reason}")
    through = [each for each in tried if each.result == "let through"]
    for bad in through:
        print_problem(f"{bad.log}: {bad.candidate} is bad, and {bad.rollout} lets it through")
    return FAILED if broken or through else DONE


def _tell_back_test(tried: list[Tried], others: list[NotTried], *, as_json: bool) -> None:
    counts = {
        result: sum(each.result == result for each in tried)
        for result in ("caught", "let through", "passed", "stopped", "undecided")
    }
    if as_json:
        totals = {name.replace(" ", "_"): count for name, count in counts.items()}
        print_json({"tried": tried, "not_tried": others, **totals})
        return
    print_rows([_tried_row(each) for each in tried], _TRIED_COLUMNS, title="Back-test")
    skipped = [each for each in others if not each.broken]
    for reason in dict.fromkeys(each.reason for each in skipped):
        logs = ", ".join(each.log for each in skipped if each.reason == reason)
        _say(f"not tried, as {reason}: {logs}")
    _say(", ".join(f"{count} {result}" for result, count in counts.items()))
    if not counts["caught"] and not counts["let through"]:
        _say("no bad version was caught or let through: this says nothing about the policy's guard")


def _tried_row(tried: Tried) -> Mapping[str, Any]:
    label = tried.label or "not known"
    return {
        "log": tried.log,
        "rollout": tried.rollout,
        "version_is": f"{label} (expected)" if tried.expected else label,
        "recorded": _ended(tried.recorded),
        "what_if": _ended(tried.what_if),
        "requests": tried.what_if.served.requests,
        "result": tried.result,
    }


def _read(log: Path) -> Iterator[Recorded]:
    with progress("reading", total=None) as show:
        for number, recorded in enumerate(read_traffic_log(log), start=1):
            if number % _SHOWN_EVERY_LINES == 0:
                show(number)
            yield recorded


def _acts(course: str, told: Course) -> Iterable[Mapping[str, Any]]:
    for act in told.acts:
        evidence = ", ".join(_evidence(act))
        yield {
            **msgspec.to_builtins(act),
            "course": course,
            "weight": f"{act.weight:g} %",
            "evidence": f"{evidence} (estimated)" if act.estimated else evidence,
        }


def _evidence(act: Act) -> Iterator[str]:
    for metric, outcome in act.outcomes.items():
        e_value = act.e_values.get(metric)
        yield f"{metric} {outcome}" + (f" e={e_value:.3g}" if e_value is not None else "")


def _ended(course: Course) -> str:
    after = f" after {course.ended_after_s:g} s" if course.ended_after_s is not None else ""
    return f"{course.state}{f' ({course.reason})' if course.reason else ''}{after}"


def _course(course: Course) -> str:
    """One course in words."""
    served = course.served
    estimated = f" ({served.estimated} estimated)" if served.estimated else ""
    unknown = "" if course.unknown_from_s is None else f"; unknown from {course.unknown_from_s:g} s"
    requests = f"{served.requests} requests{estimated}, {served.failed} failed"
    return f"{_ended(course)}; {requests}{unknown}"


def _compared(report: RolloutReport) -> str:
    if report.same:
        return "; the same"
    seconds = report.detection_difference_s
    if seconds is None:
        return ""
    when = "later" if seconds > 0 else "earlier"
    return f"; found out {abs(seconds):g} s {when}" if seconds else "; found out at the same time"


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)

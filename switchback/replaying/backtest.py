"""A back-test: would a policy have let a bad version through, in any log of a folder?

What is bad is known afterwards. `<log>.expect.json` beside a log says it, rollout by rollout:
`{"<rollout id>": "bad"}` or `"good"`, and is believed before the log. Without it the log speaks:
a version is bad if its rollout was aborted because it failed, by an alert or by a rollback, or if
it was rolled back after its rollout had completed, and good if it was completed and stayed. Of one
that was given up for another reason nothing is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from engine.whatif import Course, RecordedRollout, WhatIf, read_recording
from engine.whatif.record import OWN_REASONS
from events import LogError
from switchback.replaying.memory import read_traffic_log
from switchback.replaying.whatif import NothingRecorded, PolicyRefused, chosen, report_of

Label: TypeAlias = Literal["good", "bad"]
Result: TypeAlias = Literal["caught", "let through", "passed", "stopped", "undecided"]
"""Of a bad version: caught, or let through; of a good one: passed, or stopped. `undecided`: the
recorded traffic ended, or people or an alert ended the rollout, before the policy would have; or
nobody knows what the version was."""

LOG_SUFFIX: Final = ".jsonl"
EXPECT_SUFFIX: Final = ".expect.json"
_BAD_REASONS: Final = frozenset({"failed", "alert", "rolled_back"})
_RESULTS: Final[dict[tuple[Label | None, str], Result]] = {
    ("bad", "completed"): "let through",
    ("bad", "aborted"): "caught",
    ("good", "completed"): "passed",
    ("good", "aborted"): "stopped",
}


class Tried(msgspec.Struct, frozen=True, kw_only=True):
    """One recorded rollout under the policy."""

    log: str
    endpoint: str
    rollout: str
    candidate: str
    label: Label | None
    expected: bool
    """Whether the label was given, beside the log."""
    recorded: Course
    what_if: Course
    result: Result


class NotTried(msgspec.Struct, frozen=True, kw_only=True):
    """A log that says nothing, and why."""

    log: str
    reason: str
    broken: bool
    """It cannot be read; otherwise it holds no rollout, or no traffic."""


class ExpectationRefused(Exception):
    """A file of labels that is none."""


def logs_in(folder: Path) -> list[Path]:
    """The logs of a folder, by name. Raises NothingRecorded, OSError."""
    found = sorted(path for path in folder.iterdir() if path.suffix == LOG_SUFFIX)
    if not found:
        raise NothingRecorded(f"{folder} holds no log: no file ends in {LOG_SUFFIX}")
    return found


def back_test(
    logs: Iterable[Path],
    policy: WhatIf,
    *,
    endpoint: str | None = None,
    rollout: str | None = None,
) -> Iterator[list[Tried | NotTried]]:
    """Log by log, what became of it. Raises nothing: a log that cannot be read is NotTried."""
    for log in logs:
        try:
            tried = _try(log, policy, endpoint=endpoint, rollout=rollout)
        except NothingRecorded as error:
            yield [NotTried(log=log.name, reason=str(error), broken=False)]
        except (LogError, OSError, ExpectationRefused, PolicyRefused) as error:
            yield [NotTried(log=log.name, reason=str(error), broken=True)]
        else:
            yield list(tried)


def _try(log: Path, policy: WhatIf, *, endpoint: str | None, rollout: str | None) -> list[Tried]:
    recording = read_recording(read_traffic_log(log))
    labels = _labels(log, {each.rollout_id for each in recording.rollouts})
    found = chosen(recording, endpoint=endpoint, rollout=rollout)
    return [_tried(log, each, policy, labels.get(each.rollout_id)) for each in found]


def _tried(log: Path, rollout: RecordedRollout, policy: WhatIf, expected: Label | None) -> Tried:
    report = report_of(rollout, policy)
    label = expected or _recorded_label(rollout)
    return Tried(
        log=log.name,
        endpoint=f"{report.tenant}/{report.endpoint}",
        rollout=report.rollout,
        candidate=report.candidate,
        label=label,
        expected=expected is not None,
        recorded=report.recorded,
        what_if=report.what_if,
        result=_result(label, report.what_if),
    )


def _result(label: Label | None, course: Course) -> Result:
    if course.reason not in OWN_REASONS:
        return "undecided"
    return _RESULTS.get((label, course.state), "undecided")


def _recorded_label(rollout: RecordedRollout) -> Label | None:
    end = rollout.end
    if end is None:
        return None
    if end.kind == "completed":
        return "bad" if rollout.returned else "good"
    return "bad" if end.reason in _BAD_REASONS else None


def _labels(log: Path, rollouts: set[str]) -> dict[str, Label]:
    path = log.with_suffix(EXPECT_SUFFIX)
    if not path.exists():
        return {}
    try:
        labels = msgspec.json.decode(path.read_bytes(), type=dict[str, Label])
    except msgspec.MsgspecError as error:
        raise ExpectationRefused(f"{path.name}: {error}") from error
    if unknown := sorted(labels.keys() - rollouts):
        raise ExpectationRefused(f"{path.name}: {log.name} holds no rollout {', '.join(unknown)}")
    return labels

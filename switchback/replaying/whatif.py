"""What-if over recorded logs: the policy in a file, one log's report, a folder's back-test.

A log for it is what `switchback events export FILE --traffic` writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from engine.decisions import policy as policies
from engine.decisions.rollout_plan import DEFAULT_STEPS, problems
from engine.whatif import (
    Course,
    RecordedRollout,
    Recording,
    WhatIf,
    WouldServe,
    read_recording,
    recorded_course,
    rerun,
    would_serve,
)
from engine.whatif.serving import AttributesNotRecorded
from events.catalogue.endpoints import Analysis, Policy, Shadow
from events.event import Recorded

_ANY_CANDIDATE = "candidate"


class PolicyRefused(Exception):
    """The policy cannot be asked about: what is wrong with it, path by path."""

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{path} {why}".strip() for path, why in fields.items()))
        self.fields = dict(fields)


class NothingRecorded(Exception):
    """The log does not hold what was asked about."""


class RolloutReport(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout, as it was and as it would have been."""

    tenant: str
    endpoint: str
    rollout: str
    baseline: str
    candidate: str
    started: str
    """RFC 3339."""
    recorded: Course
    what_if: Course
    same: bool
    """Whether the other policy would have done the very same."""
    detection_difference_s: float | None
    """How much later, or, below zero, earlier, the candidate would have been found to fail."""


class TrafficReport(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint's traffic, under another policy of routing."""

    tenant: str
    endpoint: str
    traffic: WouldServe


def read_policy(text: bytes) -> WhatIf | Policy:
    """The policy in a file: steps and analysis of rollouts, or a split of traffic.

    Held to what a rollout or a policy is held to when it is set. Raises PolicyRefused.
    """
    try:
        found = msgspec.json.decode(text)
        if isinstance(found, dict) and "split" in found:
            split = msgspec.convert(found, Policy)
            _refuse_if(policies.problems(split))
            return split
        policy = msgspec.convert(found, WhatIf)
    except msgspec.MsgspecError as error:
        raise PolicyRefused({"the policy": f"is none: {error}"}) from error
    _refuse_if(_problems(policy))
    return policy


def rollouts_policy(policy: Mapping[str, Any]) -> WhatIf:
    """As `read_policy`, of `steps` and `analysis` given as values. Raises PolicyRefused."""
    found = read_policy(msgspec.json.encode(policy))
    if isinstance(found, Policy):
        raise PolicyRefused({"split": "is asked of traffic, and not of rollouts"})
    return found


def what_if(
    log: Iterable[Recorded],
    policy: WhatIf,
    *,
    endpoint: str | None = None,
    rollout: str | None = None,
) -> list[RolloutReport]:
    """Every rollout of the log under the policy, in the order in which they began.

    Raises PolicyRefused, NothingRecorded, and what reading the log raises.
    """
    recording = read_recording(log)
    found = chosen(recording, endpoint=endpoint, rollout=rollout)
    return [report_of(each, policy) for each in found]


def traffic_under(
    log: Iterable[Recorded], policy: Policy, *, endpoint: str | None = None
) -> list[TrafficReport]:
    """What each version would have served of each endpoint's traffic.

    Raises PolicyRefused, NothingRecorded, and what reading the log raises.
    """
    recording = read_recording(log)
    _check_traffic(recording)
    reports = []
    for entity, windows in sorted(recording.windows.items()):
        if endpoint in (None, entity.id):
            try:
                traffic = would_serve(policy, windows, recording.policies)
            except AttributesNotRecorded as error:
                raise PolicyRefused({"": str(error)}) from error
            reports.append(TrafficReport(tenant=entity.tenant, endpoint=entity.id, traffic=traffic))
    if not reports:
        raise NothingRecorded(f"the log holds no traffic of endpoint {endpoint}")
    return reports


def read_policy_file(path: Path) -> WhatIf | Policy:
    """Raises PolicyRefused, which names the file, and OSError."""
    try:
        return read_policy(path.read_bytes())
    except PolicyRefused as error:
        fields = {f"{path}: {where}": why for where, why in error.fields.items()}
        raise PolicyRefused(fields) from error


def report_of(rollout: RecordedRollout, policy: WhatIf) -> RolloutReport:
    """One rollout under the policy. Raises PolicyRefused."""
    _check_fits(rollout, policy)
    recorded, would = recorded_course(rollout), rerun(rollout, policy)
    return RolloutReport(
        tenant=rollout.entity.tenant,
        endpoint=rollout.entity.id,
        rollout=rollout.rollout_id,
        baseline=rollout.baseline,
        candidate=rollout.candidate,
        started=rollout.started.isoformat(),
        recorded=recorded,
        what_if=would,
        same=recorded == would,
        detection_difference_s=_difference(recorded, would),
    )


def _refuse_if(wrong: dict[str, str]) -> None:
    if wrong:
        raise PolicyRefused(wrong)


def _difference(recorded: Course, would: Course) -> float | None:
    if recorded.detected_after_s is None or would.detected_after_s is None:
        return None
    return round(would.detected_after_s - recorded.detected_after_s, 3)


def chosen(
    recording: Recording, *, endpoint: str | None, rollout: str | None
) -> list[RecordedRollout]:
    """The rollouts that are asked about. Raises NothingRecorded."""
    if not recording.rollouts:
        raise NothingRecorded("the log holds no rollout")
    _check_traffic(recording)
    found = [
        each
        for each in recording.rollouts
        if endpoint in (None, each.entity.id) and rollout in (None, each.rollout_id)
    ]
    if not found:
        there = ", ".join(f"{each.entity.id} {each.rollout_id}" for each in recording.rollouts)
        raise NothingRecorded(f"the log holds no such rollout, but {there}")
    return found


def _check_traffic(recording: Recording) -> None:
    if not recording.windows:
        raise NothingRecorded(
            "the log holds no traffic windows; `events export FILE --traffic` writes them too"
        )


def _problems(policy: WhatIf) -> dict[str, str]:
    """What is wrong with it whatever the rollout."""
    some = Policy(split={"baseline": 1.0}, shadow=(Shadow(version=_ANY_CANDIDATE),))
    return _problems_of(policy, to=_ANY_CANDIDATE, baseline="baseline", policy=some)


def _problems_of(what_if: WhatIf, **rollout: Any) -> dict[str, str]:
    steps = DEFAULT_STEPS if what_if.steps is None else what_if.steps
    return problems(steps=steps, analysis=what_if.analysis or Analysis(), **rollout)


def _check_fits(rollout: RecordedRollout, policy: WhatIf) -> None:
    wrong = _problems_of(
        policy, to=rollout.candidate, baseline=rollout.baseline, policy=rollout.policy
    )
    if wrong:
        where = f"rollout {rollout.rollout_id}: "
        raise PolicyRefused({f"{where}{path}": why for path, why in wrong.items()})

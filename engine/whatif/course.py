"""What a rollout did, or would have done: the same shape for both, so that they compare."""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from events.catalogue.endpoints import Analysis, Step, Verdict

State: TypeAlias = Literal["completed", "aborted", "running", "held"]
ActKind: TypeAlias = Literal["advanced", "held", "resumed", "completed", "aborted"]


class WhatIf(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Another policy for rollouts. What is absent is as recorded."""

    steps: tuple[Step, ...] | None = None
    analysis: Analysis | None = None


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened to the rollout."""

    after_s: float
    """Since the rollout began."""
    action: ActKind
    step: int
    """In force after it, or last; an index from 0."""
    weight: float
    """The candidate's share in force after it, in per cent."""
    reason: str
    outcomes: dict[str, str] = {}
    """Metric -> pass, fail or inconclusive: what it was done on."""
    e_values: dict[str, float] = {}
    estimated: bool = False
    """Whether some of the evidence is an estimate."""


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What the candidate answered while the rollout lasted."""

    requests: int = 0
    failed: int = 0
    estimated: int = 0
    """Of the requests, those that were not recorded as such."""


class Course(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout from its beginning to its end, or to where nothing more is known."""

    state: State
    """`running` and `held`: at the end of what is known."""
    reason: str = ""
    """Why it ended."""
    acts: tuple[Act, ...] = ()
    ended_after_s: float | None = None
    detected_after_s: float | None = None
    """When the candidate was found to fail."""
    served: Served = Served()
    unknown_from_s: float | None = None
    """From here on the log does not say what the candidate would have done."""


def outcomes_of(verdicts: tuple[Verdict, ...]) -> dict[str, str]:
    return {verdict.metric: verdict.outcome for verdict in verdicts}


def e_values_of(verdicts: tuple[Verdict, ...]) -> dict[str, float]:
    return {v.metric: v.e_value for v in verdicts if v.e_value is not None}

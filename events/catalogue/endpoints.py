"""Endpoints: stable names, and how their traffic is split. Entity `<tenant>/endpoint/<name>`.

Every event that changes the split carries the whole policy that holds after it, so a reader needs
no earlier event to route.
"""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal, TypeAlias

import msgspec

from events.event import Event

Severity: TypeAlias = Literal["warning", "critical"]
Metric: TypeAlias = Literal["error_rate", "timeout_rate", "latency", "quality"]
Day: TypeAlias = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class When(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The condition of a rule: all given members must hold."""

    days: tuple[Day, ...] | None = None
    """Local days on which the window *starts*."""
    from_: str | None = msgspec.field(name="from", default=None)
    """Local time `HH:MM`, inclusive."""
    to: str | None = None
    """Local time `HH:MM`, exclusive; before `from`, the window crosses midnight."""
    timezone: str | None = None
    """IANA name; UTC when absent."""
    attributes: dict[str, str] | None = None
    """Request attributes that must all be equal."""


class Rule(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A split of its own for the requests that match."""

    name: str
    when: When
    split: dict[str, float]


class Comparison(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """When a shadow's output agrees with the answer that was returned."""

    kind: Literal["exact", "numeric", "text", "function"] = "exact"
    """`numeric`: every number within `tolerance`, all else equal; `text`: the similarity of every
    text is at least `similarity`, all else equal; `function`: one that gateways know by `name`."""
    tolerance: float = 0.0
    """Of numbers: relative to the larger one, or absolute below 1."""
    similarity: float = 1.0
    """Of texts, 0 to 1: normalised insertions and deletions."""
    name: str | None = None


class Shadow(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """A version that is sent copies and whose answers are never returned."""

    version: str
    fraction: float = 1.0
    """Of the requests, 0 to 1."""
    compare: Comparison = Comparison()


class Policy(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """How traffic is split: the first rule that matches wins, else `split`."""

    split: dict[str, float]
    """Version -> weight; non-negative, normalised, not all zero."""
    sticky: bool = True
    """The same key gets the same version while the policy stands."""
    shadow: tuple[Shadow, ...] = ()
    rules: tuple[Rule, ...] = ()
    fallback: tuple[str, ...] = ()
    """Versions that are asked in this order when the chosen one fails before it has begun to
    answer. What they answer counts as theirs, and the failure as that of the version that failed.
    """


class Step(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One step of a rollout."""

    weight: float
    """The candidate's share of the traffic in per cent, 0 to 100; grows from step to step."""
    hold_s: float
    """How long the step lasts at least, 0 to 30 days."""
    min_samples: int = 0
    """Requests the candidate must have answered in this step before it can pass."""


class Analysis(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """How a rollout judges its candidate. Error rate and sample ratio are always judged."""

    metric: Metric = "error_rate"
    """What is compared with the baseline, besides the error rate. `latency`: the share of requests
    that take longer than `max_latency_ms`, which it needs. `quality`: the share of answers that
    `check` finds bad."""
    check: str | None = None
    """The function, one that gateways know by name, that says of an answer whether it is good."""
    alpha: float = 0.05
    """The probability that a candidate as good as the baseline is ever rolled back: over all
    metrics, and however often one looks."""
    margin: float = 0.02
    """To pass, the candidate's rate must be shown to exceed the baseline's by at most this."""
    max_error_rate: float | None = None
    """Fail when the candidate's error rate is shown to be higher, whatever the baseline's is."""
    max_latency_ms: float | None = None
    """Fail when more than 5 % of the candidate's requests are shown to take longer."""
    max_latency_ratio: float | None = None
    """Fail when the candidate's mean latency is shown to exceed the baseline's times this."""
    max_disagreement_rate: float | None = None
    """Pass only when the candidate, as a shadow, is shown to disagree less often than this."""
    on_inconclusive: Literal["hold", "rollback", "promote"] = "hold"
    """What to do when a step's hold is over and the evidence says neither pass nor fail."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one metric says, and on what evidence."""

    metric: str
    """One of Metric, `sample_ratio`, or the name of a limit."""
    outcome: Literal["pass", "fail", "inconclusive"]
    baseline_samples: int
    candidate_samples: int
    estimate: float | None = None
    """The candidate's rate or mean minus the baseline's; of a limit, the candidate's own."""
    interval: tuple[float, float] | None = None
    """Of the estimate, valid at every look, at level 1 - alpha."""
    e_value: float | None = None
    """Evidence of harm; it fails at `threshold`."""
    alpha: float
    """This metric's part of the rollout's alpha."""
    threshold: float | None = None
    detail: str = ""


class EndpointCreated(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.created.v1"
    model: str
    version: str
    policy: Policy


class PolicySet(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.policy_set.v1"
    policy: Policy


class SwapRequested(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Nodes load `to_version`; traffic stays where it is."""

    type: ClassVar[str] = "switchback.endpoint.swap_requested.v1"
    swap_id: str
    from_version: str
    to_version: str
    deadline: datetime
    """The swap fails if the version is not resident by then."""


class SwapCompleted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """All traffic goes to `to_version`; `from_version` stays resident as the rollback target."""

    type: ClassVar[str] = "switchback.endpoint.swap_completed.v1"
    swap_id: str
    from_version: str
    to_version: str
    policy: Policy


class SwapFailed(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.swap_failed.v1"
    swap_id: str
    from_version: str
    to_version: str
    reason: Literal["load_failed", "timeout", "rolled_back", "superseded"]
    detail: str = ""


class RolledBack(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.rolled_back.v1"
    from_versions: tuple[str, ...]
    """The versions that lost their traffic, or were about to get it."""
    to_version: str
    reason: str
    policy: Policy


class RolloutStarted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The first step is in force."""

    type: ClassVar[str] = "switchback.endpoint.rollout_started.v1"
    rollout_id: str
    baseline: str
    """The version that took all traffic."""
    candidate: str
    steps: tuple[Step, ...]
    analysis: Analysis
    hold_until: datetime
    policy: Policy


class RolloutAdvanced(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The next step is in force."""

    type: ClassVar[str] = "switchback.endpoint.rollout_advanced.v1"
    rollout_id: str
    step: int
    """Index into the rollout's steps, from 0."""
    reason: Literal["passed", "inconclusive", "promoted"]
    """Why the step before it ended; `inconclusive`: the analysis says to promote then."""
    hold_until: datetime
    policy: Policy
    verdicts: tuple[Verdict, ...] = ()


class RolloutHeld(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The step lasts until it is known to be good, or until it is resumed."""

    type: ClassVar[str] = "switchback.endpoint.rollout_held.v1"
    rollout_id: str
    step: int
    reason: Literal["inconclusive", "paused"]
    hold_left_s: float = 0.0
    """What was left of the step's hold."""
    verdicts: tuple[Verdict, ...] = ()


class RolloutResumed(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.rollout_resumed.v1"
    rollout_id: str
    step: int
    hold_until: datetime


class RolloutCompleted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """All traffic goes to the candidate, and the rollout is over."""

    type: ClassVar[str] = "switchback.endpoint.rollout_completed.v1"
    rollout_id: str
    baseline: str
    candidate: str
    reason: Literal["passed", "inconclusive", "promoted"]
    policy: Policy
    verdicts: tuple[Verdict, ...] = ()


class RolloutAborted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """The rollout is over; what changes the traffic follows: RolledBack, or PolicySet."""

    type: ClassVar[str] = "switchback.endpoint.rollout_aborted.v1"
    rollout_id: str
    baseline: str
    candidate: str
    step: int
    reason: Literal["aborted", "failed", "inconclusive", "rolled_back", "alert", "superseded"]
    """`failed`: a verdict; `inconclusive`: the analysis says to roll back then."""
    detail: str = ""
    verdicts: tuple[Verdict, ...] = ()


class AlertRaised(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.alert_raised.v1"
    alert_id: str
    kind: str
    severity: Severity
    version: str | None = None
    """What it is about: the newest version taking traffic then, if nobody said."""
    detail: str = ""


class AlertCleared(Event, frozen=True, kw_only=True, omit_defaults=True):
    type: ClassVar[str] = "switchback.endpoint.alert_cleared.v1"
    alert_id: str
    reason: str = ""


EVENTS: tuple[type[Event], ...] = (
    EndpointCreated,
    PolicySet,
    SwapRequested,
    SwapCompleted,
    SwapFailed,
    RolledBack,
    RolloutStarted,
    RolloutAdvanced,
    RolloutHeld,
    RolloutResumed,
    RolloutCompleted,
    RolloutAborted,
    AlertRaised,
    AlertCleared,
)

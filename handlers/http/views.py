"""What the control API answers with: the shapes of the contract, beside those of `projections`."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal, Self

import msgspec

from engine.analysis.comparison import Comparison, Difference, Summary
from engine.analysis.looking import Outcome
from engine.analysis.shadow_report import ShadowSummary
from events.catalogue.tenants import Scope
from events.event import Position


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """A command was accepted."""

    position: Position
    """Of the event it led to; of the first time when nothing changed."""
    changed: bool
    """False: everything was so already, and nothing was written."""


class ModelApplied(Applied, frozen=True, kw_only=True):
    """As of `position`."""

    aliases: dict[str, str]


class VersionApplied(Applied, frozen=True, kw_only=True):
    """As of `position`."""

    state: Literal["registered", "retired"]


class IssuedKey(msgspec.Struct, frozen=True, kw_only=True):
    """`key` is the secret, shown this once."""

    position: Position
    id: str
    key: str
    scopes: tuple[Scope, ...]
    expires_at: datetime | None
    tokens_per_minute: int | None


class RollbackView(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename={"from_": "from"}
):
    """A rollback that every live gateway has applied."""

    from_: str
    to: str
    reason: str
    duration_ms: float
    position: Position


class ExplainedEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The event that made a decision so."""

    id: str
    type: str
    time: datetime
    actor: str


class Explanation(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which version a key gets, by which rule, and because of which event."""

    endpoint: str
    version: str
    """Of a valid receipt: the one that answered."""
    instead_of: str | None = None
    """Of a valid receipt: the version that was chosen and failed, where a fallback answered."""
    bucket: int
    rule: str | None
    """None: the split outside every rule."""
    position: Position
    event: ExplainedEvent
    valid: bool | None = None
    """Of a receipt: whether recomputing gives what it says."""


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One part of the process, in `/readyz`."""

    state: Literal["ok", "degraded", "down"]
    required: bool
    """Not ready while a required part is down."""
    detail: str | None = None
    position: Position | None = None
    lag: int | None = None
    """Events it has not applied yet."""
    skipped: int | None = None
    """Events it was told to pass over."""


class DifferenceView(msgspec.Struct, frozen=True, kw_only=True):
    """The candidate's minus the baseline's, and what it says."""

    error_rate: Difference
    bad_rate: Difference
    """Of answers that a rollout's check found bad, among those it was asked about."""
    mean_latency_ms: Difference
    verdict: Outcome
    detail: str
    """The verdict in words."""
    alpha: float
    margin: float
    method: str


class CompareView(msgspec.Struct, frozen=True, kw_only=True):
    """Two versions by the traffic of the last while."""

    endpoint: str
    since_s: float
    baseline: str
    candidate: str
    rollout: str | None
    """The live rollout that these are the versions of."""
    versions: dict[str, Summary]
    difference: DifferenceView
    windows: int
    """Windows of traffic that hold either version."""
    gateways: tuple[str, ...]
    policies: int
    """Policies that these requests were routed by."""

    @classmethod
    def of(
        cls, comparison: Comparison, *, endpoint: str, since_s: float, rollout: str | None
    ) -> Self:
        sides = (comparison.baseline, comparison.candidate)
        return cls(
            endpoint=endpoint,
            since_s=since_s,
            baseline=comparison.baseline.version,
            candidate=comparison.candidate.version,
            rollout=rollout,
            versions={side.version: side for side in sides},
            difference=DifferenceView(
                error_rate=comparison.error_rate,
                bad_rate=comparison.bad_rate,
                mean_latency_ms=comparison.mean_latency_ms,
                verdict=comparison.verdict,
                detail=comparison.detail,
                alpha=comparison.alpha,
                margin=comparison.margin,
                method=comparison.method,
            ),
            windows=comparison.windows,
            gateways=comparison.gateways,
            policies=comparison.policies,
        )


class ShadowView(msgspec.Struct, frozen=True, kw_only=True):
    """Every version that was sent copies in the last while."""

    endpoint: str
    since_s: float
    versions: dict[str, ShadowSummary]

    @classmethod
    def of(cls, summaries: Iterable[ShadowSummary], *, endpoint: str, since_s: float) -> Self:
        versions = {summary.version: summary for summary in summaries}
        return cls(endpoint=endpoint, since_s=since_s, versions=versions)

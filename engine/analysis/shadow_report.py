"""What shadows did with their copies, per version."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

import msgspec

from engine.analysis.rates import interval
from engine.analysis.sketches import Merged, moments, quantile
from events.catalogue.traffic import LatencySketch, ShadowWindow, WindowObserved

ALPHA: Final = 0.05


class LatencyDifference(msgspec.Struct, frozen=True, kw_only=True):
    """The shadow's latency minus that of the requests it copied, in milliseconds."""

    p50_ms: float
    p95_ms: float
    mean_ms: float


class ShadowSummary(msgspec.Struct, frozen=True, kw_only=True):
    version: str
    mirrored: int
    dropped: int
    compared: int
    agreed: int
    disagreement_rate: float | None
    """Of compared copies; None without one."""
    interval: tuple[float, float] | None
    """Of the disagreement rate, valid at every look, at level 1 - alpha; copies are counted as
    independent."""
    alpha: float
    errors: int
    errors_by_code: dict[str, int]
    latency: LatencyDifference | None
    """Over compared copies; None without one."""


class _Sum:
    def __init__(self, version: str) -> None:
        self.version = version
        self.mirrored = self.dropped = self.compared = self.agreed = 0
        self.codes: Counter[str] = Counter()
        self.shadow = Merged()
        self.primary = Merged()

    def add(self, window: ShadowWindow) -> None:
        self.mirrored += window.mirrored
        self.dropped += window.dropped
        self.compared += window.compared
        self.agreed += window.agreed
        self.codes.update(window.errors)
        if window.latency is not None:
            self.shadow.add(window.latency)
        if window.primary_latency is not None:
            self.primary.add(window.primary_latency)


def shadow_report(windows: Iterable[WindowObserved]) -> list[ShadowSummary]:
    """Every version that was a shadow in these windows, in order of version."""
    sums: dict[str, _Sum] = {}
    for window in windows:
        for version, shadow in window.shadows.items():
            sums.setdefault(version, _Sum(version)).add(shadow)
    return [_summary(sums[version]) for version in sorted(sums)]


def _summary(of: _Sum) -> ShadowSummary:
    differed = of.compared - of.agreed
    return ShadowSummary(
        version=of.version,
        mirrored=of.mirrored,
        dropped=of.dropped,
        compared=of.compared,
        agreed=of.agreed,
        disagreement_rate=differed / of.compared if of.compared else None,
        interval=interval(differed, of.compared, alpha=ALPHA) if of.compared else None,
        alpha=ALPHA,
        errors=of.codes.total(),
        errors_by_code=dict(sorted(of.codes.items())),
        latency=_difference(of.primary.sketch(), of.shadow.sketch()),
    )


def _difference(
    primary: LatencySketch | None, shadow: LatencySketch | None
) -> LatencyDifference | None:
    if primary is None or shadow is None:
        return None
    return LatencyDifference(
        p50_ms=quantile(shadow, 0.50) - quantile(primary, 0.50),
        p95_ms=quantile(shadow, 0.95) - quantile(primary, 0.95),
        mean_ms=moments(shadow).mean - moments(primary).mean,
    )

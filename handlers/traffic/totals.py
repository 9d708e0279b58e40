"""Sums of all windows since the process started, for whoever scrapes them.

Bounded: of more than `TOTALS_MAX` versions, those that had no traffic for the longest time are
forgotten. One that comes back begins at zero, as after a restart.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, OrderedDict
from collections.abc import Mapping
from typing import Final, TypeAlias, TypeVar

from events import EntityId
from events.catalogue.traffic import (
    CheckWindow,
    LatencySketch,
    ShadowWindow,
    VersionWindow,
    WindowObserved,
)

TOTALS_MAX: Final = 4_096
LATENCY_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
"""Upper bounds of a latency histogram's buckets; above the last there is one more."""

Which: TypeAlias = tuple[str, str, str]
"""Tenant, endpoint, version."""
_T = TypeVar("_T")


class Latencies:
    """A histogram. A latency within 2 % below a bound may be counted above it."""

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_SECONDS) + 1)
        self.sum_s = 0.0

    def add(self, sketch: LatencySketch) -> None:
        base = (1 + sketch.relative_accuracy) / (1 - sketch.relative_accuracy)
        for index, count in sketch.bins.items():
            self.counts[bisect_left(LATENCY_SECONDS, base**index / 1_000)] += count
        self.counts[0] += sketch.zeros
        self.sum_s += sketch.sum_ms / 1_000


class VersionTotal:
    """Of one version."""

    def __init__(self) -> None:
        self.latencies = Latencies()
        self.fallbacks = 0
        self.units_left_out = 0
        self.checks: CheckTotal | None = None
        """None as long as no check was asked for."""

    def add(self, window: VersionWindow, *, left_out: int) -> None:
        self.fallbacks += window.fallbacks
        self.units_left_out += left_out
        if window.checks is not None:
            self.checks = self.checks or CheckTotal()
            self.checks.add(window.checks)
        if window.latency is not None:
            self.latencies.add(window.latency)


class CheckTotal:
    """Of one version's answers, and what a check said of them."""

    def __init__(self) -> None:
        self.checked = 0
        self.bad = 0
        self.failed = 0
        self.dropped = 0

    def add(self, window: CheckWindow) -> None:
        self.checked += window.checked
        self.bad += window.bad
        self.failed += window.failed
        self.dropped += window.dropped


class ShadowTotal:
    """Of one shadow version."""

    def __init__(self) -> None:
        self.mirrored = 0
        self.dropped = 0
        self.compared = 0
        self.agreed = 0
        self.errors: Counter[str] = Counter()

    def add(self, window: ShadowWindow) -> None:
        self.mirrored += window.mirrored
        self.dropped += window.dropped
        self.compared += window.compared
        self.agreed += window.agreed
        self.errors.update(window.errors)


class Totals:
    """Everything since the start, by version."""

    def __init__(self) -> None:
        self.versions: OrderedDict[Which, VersionTotal] = OrderedDict()
        self.shadows: OrderedDict[Which, ShadowTotal] = OrderedDict()

    def add(self, entity: EntityId, window: WindowObserved, *, left_out: Mapping[str, int]) -> None:
        """`left_out`: version -> requests whose keys were too many to be units."""
        for version, seen in window.versions.items():
            which = (entity.tenant, entity.id, version)
            total = _latest(self.versions, which, VersionTotal())
            total.add(seen, left_out=left_out.get(version, 0))
        for version, mirrored in window.shadows.items():
            which = (entity.tenant, entity.id, version)
            _latest(self.shadows, which, ShadowTotal()).add(mirrored)


def _latest(totals: OrderedDict[Which, _T], which: Which, new: _T) -> _T:
    """What is known of it, or the new one; either way it is the last to be forgotten."""
    total = totals.setdefault(which, new)
    totals.move_to_end(which)
    while len(totals) > TOTALS_MAX:
        totals.popitem(last=False)
    return total

"""What is counted while a second lasts. A `Lane` is one endpoint under one policy."""

from __future__ import annotations

from typing import Final

from ddsketch import DDSketch

from engine.routing import Table
from events import EntityId
from events.catalogue.traffic import CheckWindow, LatencySketch, ShadowWindow, VersionWindow
from handlers.traffic.units import Keys, UnitTally, is_first

RELATIVE_ACCURACY: Final = 0.01


class VersionTally:
    """One version in the current second; `in_flight` outlives it."""

    __slots__ = (
        "checks",
        "errors",
        "fallbacks",
        "fallbacks_failed",
        "in_flight",
        "requests",
        "sketch",
        "tokens",
        "units",
    )

    def __init__(self, *, in_flight: int = 0) -> None:
        self.in_flight = in_flight
        self.clear()

    def clear(self) -> None:
        self.requests = 0
        self.errors: dict[str, int] = {}
        self.fallbacks = 0
        self.fallbacks_failed = 0
        self.tokens = 0
        self.sketch = DDSketch(RELATIVE_ACCURACY)
        self.units = UnitTally()
        self.checks: CheckTally | None = None

    def window(self) -> VersionWindow:
        return VersionWindow(
            requests=self.requests,
            errors=self.errors,
            fallbacks=self.fallbacks,
            fallbacks_failed=self.fallbacks_failed,
            tokens=self.tokens,
            latency=latency_sketch(self.sketch),
            in_flight=self.in_flight,
            units=self.units.units(),
            checks=None if self.checks is None else self.checks.window(),
        )


class CheckTally:
    """What the check said of one version in the current second."""

    __slots__ = ("bad", "bad_keys", "checked", "dropped", "failed", "keys")

    def __init__(self) -> None:
        self.checked = 0
        self.bad = 0
        self.failed = 0
        self.dropped = 0
        self.keys = 0
        self.bad_keys = 0

    def window(self) -> CheckWindow:
        return CheckWindow(
            checked=self.checked,
            bad=self.bad,
            failed=self.failed,
            dropped=self.dropped,
            keys=self.keys,
            bad_keys=self.bad_keys,
        )


class ShadowTally:
    """One shadow version in the current second."""

    __slots__ = ("agreed", "compared", "dropped", "errors", "mirrored", "primary", "sketch")

    def __init__(self) -> None:
        self.mirrored = 0
        self.dropped = 0
        self.compared = 0
        self.agreed = 0
        self.errors: dict[str, int] = {}
        self.sketch = DDSketch(RELATIVE_ACCURACY)
        self.primary = DDSketch(RELATIVE_ACCURACY)

    def window(self) -> ShadowWindow:
        return ShadowWindow(
            mirrored=self.mirrored,
            dropped=self.dropped,
            compared=self.compared,
            agreed=self.agreed,
            errors=self.errors,
            latency=latency_sketch(self.sketch),
            primary_latency=latency_sketch(self.primary),
        )


class Lane:
    """One endpoint under one policy: requests that it routed count here, whenever they end."""

    __slots__ = (
        "_checked",
        "_due",
        "check",
        "entity",
        "is_due",
        "keys",
        "shadows",
        "slow_after_ms",
        "table",
        "versions",
    )

    def __init__(
        self,
        entity: EntityId,
        table: Table,
        *,
        keys: Keys | None,
        slow_after_ms: float,
        check: str | None,
        due: list[Lane],
    ) -> None:
        """`due`: where it enters itself as soon as it has something to tell."""
        self.entity = entity
        """The endpoint's traffic."""
        self.table = table
        self.keys = keys
        self.slow_after_ms = slow_after_ms
        self.check = check
        """The function that judges its answers, by name."""
        self._checked: set[int] = set()
        """Keys that had an answer checked under this policy."""
        self.versions: dict[str, VersionTally] = {}
        self.shadows: dict[str, ShadowTally] = {}
        self._due = due
        self.is_due = False

    def version(self, name: str) -> VersionTally:
        tally = self.versions.get(name)
        if tally is None:
            tally = self.versions[name] = VersionTally()
            self._is_now_due()
        return tally

    def shadow(self, name: str) -> ShadowTally:
        tally = self.shadows.get(name)
        if tally is None:
            tally = self.shadows[name] = ShadowTally()
            self._is_now_due()
        return tally

    def checks(self, name: str) -> CheckTally:
        version = self.version(name)
        if version.checks is None:
            version.checks = CheckTally()
        return version.checks

    def is_first_check(self, key: int | None) -> bool:
        """Whether this key has its first answer checked under this policy; it is known then."""
        return is_first(key, self._checked)

    def begin_second(self) -> None:
        """Forget what was counted. Requests under way stay, and make it due again."""
        self.is_due = False
        self.shadows = {}
        self.versions = {name: each for name, each in self.versions.items() if each.in_flight}
        for tally in self.versions.values():
            tally.clear()
            self._is_now_due()

    def _is_now_due(self) -> None:
        if not self.is_due:
            self.is_due = True
            self._due.append(self)


def latency_sketch(sketch: DDSketch) -> LatencySketch | None:
    """The sketch as event data; None of nothing."""
    if not sketch.count:
        return None
    store = sketch._store  # the library has no public way to its bins
    bins = {index + store.offset: int(count) for index, count in enumerate(store.bins) if count}
    return LatencySketch(
        relative_accuracy=RELATIVE_ACCURACY,
        bins=bins,
        zeros=int(sketch._zero_count),
        sum_ms=sketch.sum,
        min_ms=sketch._min,
        max_ms=sketch._max,
    )

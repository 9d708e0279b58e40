"""What a window would have held, had the candidate had another share of its requests.

Each version is taken to do with all its requests what it did with those it had: its failures and
latencies grow and shrink with them. Fractions are kept and added up until they make a whole, so
that sums are right to within one and the same log gives the same estimate. A second in which a
version that would have had traffic had none is read together with those that follow; if none does
within `TOGETHER_SECONDS_MAX`, nothing is known from there on.

An estimate is no observation. It has the sample ratio that the share says, it makes as many
failures out of one as the weight is larger, and knows nothing of what load does to a version.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from math import floor
from typing import Final

import msgspec

from engine.analysis.counts import slower_than
from engine.analysis.sketches import Merged
from engine.whatif.record import RecordedRollout
from events.catalogue.endpoints import Analysis
from events.catalogue.traffic import LatencySketch, Units, VersionWindow, WindowObserved

TOGETHER_SECONDS_MAX: Final = 60.0


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What a version did with its requests of some seconds."""

    requests: int
    errors: dict[str, int]
    timeouts: int
    """Of keys, as `errors_of_keys` and `slow`."""
    errors_of_keys: int
    slow: int
    latency: LatencySketch | None


class Together(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds that are read together."""

    baseline: Rates
    candidate: Rates


class Estimates:
    """Estimates of one rollout's windows, in order."""

    def __init__(self, windows: Sequence[WindowObserved], *, baseline: str, candidate: str) -> None:
        self._windows = windows
        self._baseline = baseline
        self._candidate = candidate
        self._together: dict[int, Together] = {}
        self._owed: defaultdict[tuple[str, str], float] = defaultdict(float)

    def window(self, index: int, *, share: float, policy: int) -> WindowObserved | None:
        """The window at `index`, with this share for the candidate, 0 to 1; None when what one of
        the versions would have done is not known."""
        window = self._windows[index]
        arms = [window.versions.get(name) for name in (self._baseline, self._candidate)]
        requests = sum(arm.requests for arm in arms if arm is not None)
        seen = sum(arm.units.seen for arm in arms if arm is not None)
        if not requests:
            return msgspec.structs.replace(window, versions={}, policy=policy)
        together = self._read_together(index, share)
        if together is None:
            return None
        versions = {
            self._baseline: self._version(
                self._baseline, together.baseline, requests * (1.0 - share), seen * (1.0 - share)
            ),
            self._candidate: self._version(
                self._candidate, together.candidate, requests * share, seen * share
            ),
        }
        return msgspec.structs.replace(window, versions=versions, policy=policy)

    def _read_together(self, index: int, share: float) -> Together | None:
        known = self._together.get(index)
        if known is not None and _suffices(known, share):
            return known
        until = self._windows[index].start + timedelta(seconds=TOGETHER_SECONDS_MAX)
        for last in range(index, len(self._windows)):
            if self._windows[last].start > until:
                return None
            span = self._windows[index : last + 1]
            if _is_there(self._baseline, span, 1.0 - share) and _is_there(
                self._candidate, span, share
            ):
                together = Together(
                    baseline=_rates(self._baseline, span), candidate=_rates(self._candidate, span)
                )
                self._together.update(dict.fromkeys(range(index, last + 1), together))
                return together
        return None

    def _version(self, version: str, rates: Rates, requests: float, seen: float) -> VersionWindow:
        if not rates.requests:
            return VersionWindow(requests=0)
        times = requests / rates.requests
        whole = self._take(version, "requests", requests)
        errors: dict[str, int] = {}
        for code, count in sorted(rates.errors.items()):
            taken = self._take(version, f"error {code}", count * times, most=whole)
            if taken:
                errors[code] = taken
            whole -= taken
        failed = sum(errors.values())
        return VersionWindow(
            requests=whole + failed,
            errors=errors,
            latency=self._latency(version, rates.latency, times),
            units=Units(
                seen=self._take(version, "seen", seen),
                errors=self._take(version, "errors", rates.errors_of_keys * times),
                timeouts=self._take(version, "timeouts", rates.timeouts * times),
                slow=self._take(version, "slow", rates.slow * times),
            ),
        )

    def _latency(
        self, version: str, sketch: LatencySketch | None, times: float
    ) -> LatencySketch | None:
        if sketch is None:
            return None
        bins = {
            index: taken
            for index, count in sketch.bins.items()
            if (taken := self._take(version, f"bin {index}", count * times))
        }
        zeros = self._take(version, "zeros", sketch.zeros * times)
        answered = sketch.zeros + sum(sketch.bins.values())
        taken = zeros + sum(bins.values())
        if not taken:
            return None
        return msgspec.structs.replace(
            sketch, bins=bins, zeros=zeros, sum_ms=sketch.sum_ms / answered * taken
        )

    def _take(self, version: str, what: str, amount: float, *, most: int | None = None) -> int:
        """The whole part of what is owed by now; what is left is owed on."""
        owed = self._owed[version, what] + amount
        taken = max(0, floor(owed + 0.5))
        if most is not None:
            taken = min(taken, most)
        self._owed[version, what] = owed - taken
        return taken


def measured_by(analysis: Analysis, rollout: RecordedRollout) -> Sequence[WindowObserved]:
    """The rollout's windows, with `slow` keys by the limit of the analysis.

    Gateways counted them by the recorded limit. For another one every slow request counts as a key.
    """
    limit_ms = analysis.max_latency_ms
    if limit_ms is None or limit_ms == rollout.analysis.max_latency_ms:
        return rollout.windows
    slow = slower_than(limit_ms)

    def measured(version: VersionWindow) -> VersionWindow:
        units = msgspec.structs.replace(version.units, slow=slow(version).failures)
        return msgspec.structs.replace(version, units=units)

    return [
        msgspec.structs.replace(
            window, versions={name: measured(each) for name, each in window.versions.items()}
        )
        for window in rollout.windows
    ]


def _suffices(together: Together, share: float) -> bool:
    return (share == 1.0 or together.baseline.requests > 0) and (
        share == 0.0 or together.candidate.requests > 0
    )


def _is_there(version: str, span: Sequence[WindowObserved], share: float) -> bool:
    return share == 0.0 or any(
        version in window.versions and window.versions[version].requests for window in span
    )


def _rates(version: str, span: Sequence[WindowObserved]) -> Rates:
    windows = [window.versions[version] for window in span if version in window.versions]
    errors: defaultdict[str, int] = defaultdict(int)
    latency = Merged()
    for window in windows:
        for code, count in window.errors.items():
            errors[code] += count
        if window.latency is not None:
            latency.add(window.latency)
    return Rates(
        requests=sum(window.requests for window in windows),
        errors=dict(errors),
        timeouts=sum(window.units.timeouts for window in windows),
        errors_of_keys=sum(window.units.errors for window in windows),
        slow=sum(window.units.slow for window in windows),
        latency=latency.sketch(),
    )

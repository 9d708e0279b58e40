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
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from math import floor
from typing import Final, TypeAlias

import msgspec

from engine.analysis.counts import Metric, slower_than
from engine.analysis.sketches import Merged
from engine.whatif.record import RecordedRollout
from events.catalogue.endpoints import Analysis
from events.catalogue.traffic import (
    CheckWindow,
    LatencySketch,
    Units,
    VersionWindow,
    WindowObserved,
)

TOGETHER_SECONDS_MAX: Final = 60.0

Recount: TypeAlias = Callable[[VersionWindow], VersionWindow]


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """What a version did with its requests of some seconds."""

    requests: int
    errors: dict[str, int]
    timeouts: int
    """Of keys, as `errors_of_keys`, `slow` and `bad`."""
    errors_of_keys: int
    slow: int
    bad: int
    latency: LatencySketch | None
    checks: CheckWindow | None


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
                bad=self._take(version, "bad", rates.bad * times),
            ),
            checks=self._checks(version, rates.checks, times),
        )

    def _checks(self, version: str, checks: CheckWindow | None, times: float) -> CheckWindow | None:
        """Parts and what they are parts of are taken apart, so that no part is more than all."""
        if checks is None:
            return None
        bad = self._take(version, "bad answers", checks.bad * times)
        good = self._take(version, "good answers", (checks.checked - checks.bad) * times)
        bad_keys = self._take(version, "bad keys", checks.bad_keys * times)
        good_keys = self._take(version, "good keys", (checks.keys - checks.bad_keys) * times)
        return CheckWindow(
            checked=good + bad,
            bad=bad,
            failed=self._take(version, "failed checks", checks.failed * times),
            dropped=self._take(version, "dropped checks", checks.dropped * times),
            keys=good_keys + bad_keys,
            bad_keys=bad_keys,
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
    """The rollout's windows as gateways would have counted them for this analysis.

    They counted slow keys by the recorded limit; for another one every slow request counts as a
    key. They asked the recorded check; what another would have said is not known.
    """
    recounts = [*_recounts(analysis, rollout.analysis)]
    if not recounts:
        return rollout.windows

    def measured(version: VersionWindow) -> VersionWindow:
        for recounted in recounts:
            version = recounted(version)
        return version

    return [
        msgspec.structs.replace(
            window, versions={name: measured(each) for name, each in window.versions.items()}
        )
        for window in rollout.windows
    ]


def _recounts(analysis: Analysis, recorded: Analysis) -> Iterator[Recount]:
    limit_ms = analysis.max_latency_ms
    if limit_ms is not None and limit_ms != recorded.max_latency_ms:
        yield partial(_with_slow, slow=slower_than(limit_ms))
    if analysis.check is not None and analysis.check != recorded.check:
        yield _unchecked


def _with_slow(version: VersionWindow, *, slow: Metric) -> VersionWindow:
    units = msgspec.structs.replace(version.units, slow=slow(version).failures)
    return msgspec.structs.replace(version, units=units)


def _unchecked(version: VersionWindow) -> VersionWindow:
    units = msgspec.structs.replace(version.units, bad=0)
    return msgspec.structs.replace(version, units=units, checks=None)


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
        bad=sum(window.units.bad for window in windows),
        latency=latency.sketch(),
        checks=_all_checks(windows),
    )


def _all_checks(windows: Sequence[VersionWindow]) -> CheckWindow | None:
    found = [window.checks for window in windows if window.checks is not None]
    if not found:
        return None
    names = CheckWindow.__struct_fields__
    return CheckWindow(**{name: sum(getattr(one, name) for one in found) for name in names})

"""The fast rule beside the statistical one: a version that plainly fails, seen within seconds.

It looks at the last seconds of one endpoint and needs no start and no share. *Plainly* means: at
least every second request, and so much more often than the other versions lately that chance makes
it look so in one look out of a million at most (Chernoff's bound on the binomial tail). For less
there are the sequential tests. Only what a version itself is to blame for counts: a node that is
away is no reason to change versions.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from datetime import datetime, timedelta
from math import log
from typing import Final, Literal

import msgspec

from events.catalogue.traffic import VersionWindow, WindowObserved

BURST_SECONDS: Final = 5.0
BURST_FAILURES_MIN: Final = 5
BURST_FAILED_SHARE_MIN: Final = 0.5
BURST_CHANCE_MAX: Final = 1e-6
USUAL_HALF_LIFE_SECONDS: Final = 60.0
"""How fast is forgotten what the other versions did."""
PRIOR_REQUESTS: Final = 10.0
PRIOR_FAILURES: Final = 0.5
"""What is believed of the others before they are seen: one request in twenty fails."""
STALL_SECONDS: Final = 10.0
STALL_IN_FLIGHT_MIN: Final = 5
WINDOWS_MAX: Final = 1_000
VERSIONS_MAX: Final = 64
FAULTS: Final = ("runtime_failed", "timeout")


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A version that plainly fails."""

    kind: Literal["error_burst", "no_answer"]
    detail: str


class Usual:
    """What versions did lately, under any policy; older requests count less."""

    def __init__(self) -> None:
        self._counts: dict[str, tuple[datetime, float, float]] = {}

    def observe(self, window: WindowObserved) -> None:
        for version, seen in window.versions.items():
            at, requests, failures = self._counts.pop(version, (window.start, 0.0, 0.0))
            age = (window.start - at).total_seconds()
            left = 0.5 ** (max(age, 0.0) / USUAL_HALF_LIFE_SECONDS)
            self._counts[version] = (
                max(at, window.start),
                requests * left + seen.requests,
                failures * left + _failures(seen),
            )
        while len(self._counts) > VERSIONS_MAX:
            self._counts.pop(next(iter(self._counts)))

    def failed_share_beside(self, version: str) -> float:
        """Of the other versions' requests; with few of them, what is usual anywhere."""
        others = [counts for name, counts in self._counts.items() if name != version]
        requests = sum(counts[1] for counts in others)
        failures = sum(counts[2] for counts in others)
        return (failures + PRIOR_FAILURES) / (requests + PRIOR_REQUESTS)


class Recent:
    """The last seconds of one endpoint under its newest policy, and what was usual before."""

    def __init__(self) -> None:
        self._windows: deque[WindowObserved] = deque(maxlen=WINDOWS_MAX)
        self._latest: datetime | None = None
        self._usual = Usual()

    def observe(self, window: WindowObserved) -> None:
        """Windows of several gateways, and of older policies, may come in any order."""
        self._usual.observe(window)
        if self._windows and window.policy != self._windows[0].policy:
            if window.policy < self._windows[0].policy:
                return
            self._windows.clear()
            self._latest = None
        self._windows.append(window)
        self._latest = max(self._latest or window.start, window.start)
        while self._windows[0].start <= self._latest - timedelta(seconds=STALL_SECONDS):
            self._windows.popleft()

    def alarm(self, version: str) -> Alarm | None:
        """What is plainly wrong with the version, if anything is."""
        return self._error_burst(version) or self._no_answer(version)

    def _error_burst(self, version: str) -> Alarm | None:
        requests, failures = _total(self._of(version, within_s=BURST_SECONDS))
        if failures < BURST_FAILURES_MIN or failures < BURST_FAILED_SHARE_MIN * requests:
            return None
        usual = self._usual.failed_share_beside(version)
        if not _is_beyond_chance(failures, requests, usual):
            return None
        detail = f"{failures} of {requests} requests failed within {BURST_SECONDS:g} s"
        return Alarm(kind="error_burst", detail=f"{detail}; {usual:.1%} would be usual")

    def _no_answer(self, version: str) -> Alarm | None:
        """Compared with the others: how long an answer may take is known from them only."""
        mine = self._of(version, within_s=STALL_SECONDS)
        seconds = {window.start for window in self._windows if version in window.versions}
        if len(seconds) < STALL_SECONDS or any(seen.requests for seen in mine):
            return None
        waiting = mine[-1].in_flight
        others, others_failures = _total(self._beside(version, within_s=STALL_SECONDS))
        if waiting < STALL_IN_FLIGHT_MIN or others - others_failures == 0:
            return None
        answered = f"the other versions answered {others - others_failures}"
        detail = f"no answer for {STALL_SECONDS:g} s to {waiting} requests or more; {answered}"
        return Alarm(kind="no_answer", detail=detail)

    def _of(self, version: str, *, within_s: float) -> list[VersionWindow]:
        return [
            window.versions[version]
            for window in self._within(within_s)
            if version in window.versions
        ]

    def _beside(self, version: str, *, within_s: float) -> list[VersionWindow]:
        return [
            seen
            for window in self._within(within_s)
            for name, seen in window.versions.items()
            if name != version
        ]

    def _within(self, seconds: float) -> list[WindowObserved]:
        if self._latest is None:
            return []
        start = self._latest - timedelta(seconds=seconds)
        return [window for window in self._windows if window.start > start]


def _total(windows: Iterable[VersionWindow]) -> tuple[int, int]:
    """(requests, failures the version is to blame for)."""
    requests = failures = 0
    for seen in windows:
        requests += seen.requests
        failures += _failures(seen)
    return requests, failures


def _failures(seen: VersionWindow) -> int:
    return sum(seen.errors.get(code, 0) for code in FAULTS)


def _is_beyond_chance(failures: int, requests: int, usual: float) -> bool:
    """Whether so many of so many would fail by chance in BURST_CHANCE_MAX of the looks at most."""
    share = failures / requests
    if share <= usual:
        return False
    divergence = share * log(share / usual)
    if share < 1.0:
        divergence += (1.0 - share) * log((1.0 - share) / (1.0 - usual))
    return requests * divergence >= -log(BURST_CHANCE_MAX)

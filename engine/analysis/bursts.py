"""The fast rule beside the statistical one: a version that plainly fails, seen within seconds.

It looks at the last seconds of one endpoint and needs no start, no share and no patience; for
anything less than plain there are the sequential tests. Numbers are counts of requests. Only what
a version itself is to blame for counts: a node that is away is no reason to change versions.
"""

from __future__ import annotations

from collections import deque
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec

from events.catalogue.traffic import VersionWindow, WindowObserved

BURST_SECONDS: Final = 5.0
BURST_FAILURES_MIN: Final = 5
BURST_FAILED_SHARE_MIN: Final = 0.5
BURST_TIMES_OTHERS_MIN: Final = 2.0
"""When every version fails alike, moving traffic between them helps nobody."""
STALL_SECONDS: Final = 10.0
STALL_IN_FLIGHT_MIN: Final = 5
WINDOWS_MAX: Final = 1_000
FAULTS: Final = ("runtime_failed", "timeout")


class Alarm(msgspec.Struct, frozen=True, kw_only=True):
    """A version that plainly fails."""

    kind: Literal["error_burst", "no_answer"]
    detail: str


class Recent:
    """The last seconds of one endpoint, under one policy."""

    def __init__(self) -> None:
        self._windows: deque[WindowObserved] = deque(maxlen=WINDOWS_MAX)
        self._latest: datetime | None = None

    def observed(self, window: WindowObserved, version: str) -> Alarm | None:
        """What is plainly wrong with the version after one more window, if anything is.

        Windows of several gateways may come in any order.
        """
        self._observe(window)
        return self._error_burst(version) or self._no_answer(version)

    def _observe(self, window: WindowObserved) -> None:
        if self._windows and window.policy != self._windows[0].policy:
            if window.policy < self._windows[0].policy:
                return
            self._windows.clear()
            self._latest = None
        self._windows.append(window)
        self._latest = max(self._latest or window.start, window.start)
        while self._windows[0].start <= self._latest - timedelta(seconds=STALL_SECONDS):
            self._windows.popleft()

    def _error_burst(self, version: str) -> Alarm | None:
        requests, failures = self._total(self._of(version, within_s=BURST_SECONDS))
        if failures < BURST_FAILURES_MIN or failures < BURST_FAILED_SHARE_MIN * requests:
            return None
        others, others_failures = self._total(self._beside(version, within_s=BURST_SECONDS))
        others_share = others_failures / others if others else 0.0
        if failures / requests < BURST_TIMES_OTHERS_MIN * others_share:
            return None
        detail = f"{failures} of {requests} requests failed within {BURST_SECONDS:g} s"
        beside = f"; {others_failures} of {others} of the other versions'" if others else ""
        return Alarm(kind="error_burst", detail=detail + beside)

    def _no_answer(self, version: str) -> Alarm | None:
        """Compared with the others: how long an answer may take is known from them only."""
        mine = self._of(version, within_s=STALL_SECONDS)
        seconds = {window.start for window in self._windows if version in window.versions}
        if len(seconds) < STALL_SECONDS or any(seen.requests for seen in mine):
            return None
        waiting = mine[-1].in_flight
        others, others_failures = self._total(self._beside(version, within_s=STALL_SECONDS))
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

    @staticmethod
    def _total(windows: list[VersionWindow]) -> tuple[int, int]:
        """(requests, failures the version is to blame for)."""
        failures = sum(seen.errors.get(code, 0) for seen in windows for code in FAULTS)
        return sum(seen.requests for seen in windows), failures

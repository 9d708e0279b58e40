"""What gateways saw, second by second: one WindowObserved per endpoint, appended to TRAFFIC.

Does not guarantee that every window arrives: at most the unsent second and what did not fit into
`WINDOWS_WAITING_MAX` are lost with a gateway or a long outage of the log; both are counted.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

import msgspec
import structlog
from ddsketch import DDSketch

from events import UNCHECKED, EntityId, EventLog, LogError, Metadata
from events.catalogue.traffic import LatencySketch, VersionWindow, WindowObserved

_log = structlog.get_logger(__name__)

WINDOW_SECONDS: Final = 1
WINDOWS_WAITING_MAX: Final = 10_000
RELATIVE_ACCURACY: Final = 0.01


class _Tally:
    """One version in the current window."""

    __slots__ = ("errors", "requests", "sketch", "tokens")

    def __init__(self) -> None:
        self.requests = 0
        self.errors: dict[str, int] = {}
        self.tokens = 0
        self.sketch = DDSketch(RELATIVE_ACCURACY)

    def window(self) -> VersionWindow:
        return VersionWindow(
            requests=self.requests,
            errors=self.errors,
            tokens=self.tokens,
            latency=latency_sketch(self.sketch) if self.sketch.count else None,
        )


class _Closed(msgspec.Struct, frozen=True, kw_only=True):
    """A window whose second is over; its metadata makes a repeated append harmless."""

    entity: EntityId
    window: WindowObserved
    metadata: Metadata


class Windows:
    """Counts requests; publishes a window when its second is over."""

    def __init__(self, *, gateway: str, log: EventLog, clock: Callable[[], float]) -> None:
        self._gateway = gateway
        self._log = log
        self._clock = clock
        self._second = int(clock())
        self._tallies: dict[tuple[str, str], dict[str, _Tally]] = {}
        self._waiting: deque[_Closed] = deque()
        self.dropped = 0
        """Windows that did not fit while the log was away."""

    def answered(
        self, tenant: str, endpoint: str, version: str, *, latency_ms: float, tokens: int = 0
    ) -> None:
        tally = self._tally(tenant, endpoint, version)
        tally.requests += 1
        tally.tokens += tokens
        tally.sketch.add(latency_ms)

    def failed(self, tenant: str, endpoint: str, version: str, *, code: str) -> None:
        tally = self._tally(tenant, endpoint, version)
        tally.requests += 1
        tally.errors[code] = tally.errors.get(code, 0) + 1

    async def run(self) -> None:
        """Publish each window as soon as its second is over, the last one at cancellation."""
        try:
            while True:
                await asyncio.sleep(self._second + WINDOW_SECONDS - self._clock())
                self._close_window()
                await self._publish()
        finally:
            self._close_window()
            await self._publish()

    def _tally(self, tenant: str, endpoint: str, version: str) -> _Tally:
        versions = self._tallies.setdefault((tenant, endpoint), {})
        tally = versions.get(version)
        if tally is None:
            tally = versions[version] = _Tally()
        return tally

    def _close_window(self) -> None:
        start = datetime.fromtimestamp(self._second, UTC)
        self._second = max(self._second + WINDOW_SECONDS, int(self._clock()))
        tallies, self._tallies = self._tallies, {}
        for (tenant, endpoint), versions in tallies.items():
            window = WindowObserved(
                gateway=self._gateway,
                start=start,
                seconds=WINDOW_SECONDS,
                versions={version: tally.window() for version, tally in versions.items()},
            )
            self._waiting.append(
                _Closed(
                    entity=EntityId(tenant, "traffic", endpoint),
                    window=window,
                    metadata=Metadata(actor=f"gateway:{self._gateway}", time=start),
                )
            )
        while len(self._waiting) > WINDOWS_WAITING_MAX:
            self._waiting.popleft()
            self.dropped += 1

    async def _publish(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        outcomes = await asyncio.gather(
            *(self._append(closed) for closed in waiting), return_exceptions=True
        )
        for closed, outcome in zip(waiting, outcomes, strict=True):
            if isinstance(outcome, LogError):
                self._waiting.append(closed)
            elif isinstance(outcome, BaseException):
                raise outcome
        if self._waiting:
            _log.warning("windows wait for the log", waiting=len(self._waiting))

    async def _append(self, closed: _Closed) -> None:
        await self._log.append(
            closed.entity, [closed.window], expected=UNCHECKED, metadata=closed.metadata
        )


def latency_sketch(sketch: DDSketch) -> LatencySketch:
    """The sketch as event data."""
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

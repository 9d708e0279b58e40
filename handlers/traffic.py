"""What gateways saw, second by second: one WindowObserved per endpoint, appended to TRAFFIC.

Guarantees: a window counts what was seen in its second, also while the log is slow or away; it is
on the log once, however often it is sent. Does not guarantee that every window arrives: what is not
sent yet is lost with a gateway that is killed, and what does not fit into `WINDOWS_WAITING_MAX`
while the log is away is dropped, oldest first, and counted.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec
import structlog
from ddsketch import DDSketch

from events import UNCHECKED, EntityId, EventLog, LogError, Metadata
from events.catalogue.traffic import LatencySketch, VersionWindow, WindowObserved
from events.errors import EventTooLarge

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
        self._waiting: OrderedDict[UUID, _Closed] = OrderedDict()
        """Windows that are not known to be on the log, by their command's id, oldest first."""
        self._closed = asyncio.Event()
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
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._close_windows())
                tasks.create_task(self._publish_closed())
        finally:
            self._close_window()
            await self._publish()

    async def _close_windows(self) -> None:
        while True:
            left_s = self._second + WINDOW_SECONDS - self._clock()
            await asyncio.sleep(min(left_s, WINDOW_SECONDS))  # the clock may be set back
            self._close_window()

    async def _publish_closed(self) -> None:
        while True:
            await self._closed.wait()
            self._closed.clear()
            await self._publish()

    def _tally(self, tenant: str, endpoint: str, version: str) -> _Tally:
        versions = self._tallies.setdefault((tenant, endpoint), {})
        tally = versions.get(version)
        if tally is None:
            tally = versions[version] = _Tally()
        return tally

    def _close_window(self) -> None:
        start = datetime.fromtimestamp(self._second, UTC)
        self._second = self._next_second()
        tallies, self._tallies = self._tallies, {}
        for (tenant, endpoint), versions in tallies.items():
            window = WindowObserved(
                gateway=self._gateway,
                start=start,
                seconds=WINDOW_SECONDS,
                versions={version: tally.window() for version, tally in versions.items()},
            )
            metadata = Metadata(actor=f"gateway:{self._gateway}", time=start)
            self._waiting[metadata.command_id] = _Closed(
                entity=EntityId(tenant, "traffic", endpoint), window=window, metadata=metadata
            )
        while len(self._waiting) > WINDOWS_WAITING_MAX:
            self._waiting.popitem(last=False)
            self.dropped += 1
        self._closed.set()

    def _next_second(self) -> int:
        now = int(self._clock())
        return now if now < self._second else max(self._second + WINDOW_SECONDS, now)

    async def _publish(self) -> None:
        waiting = list(self._waiting.values())
        failed = sum(await asyncio.gather(*(self._append(closed) for closed in waiting)))
        if failed:
            _log.warning("windows wait for the log", waiting=failed)

    async def _append(self, closed: _Closed) -> bool:
        """Whether the window still waits. It is taken out only once it is on the log."""
        try:
            await self._log.append(
                closed.entity, [closed.window], expected=UNCHECKED, metadata=closed.metadata
            )
        except EventTooLarge as error:
            _log.error("window dropped", error=str(error))
            self.dropped += 1
        except LogError:
            return True
        self._waiting.pop(closed.metadata.command_id, None)
        return False


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

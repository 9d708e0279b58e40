"""What gateways saw, second by second: one WindowObserved per endpoint and policy, on TRAFFIC.

Guarantees: a window counts what ended in its second, also while the log is slow or away; it is on
the log once, however often it is sent. While requests are under way every second has a window, also
if none of them is answered; an endpoint without requests has none. Does not guarantee that every
window arrives: what is not sent yet is lost with a gateway that is killed, and what does not fit
into `WINDOWS_WAITING_MAX` while the log is away is dropped, oldest first, and counted.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import msgspec
import structlog

from engine.routing import Decision
from events import UNCHECKED, EntityId, EventLog, LogError, Metadata
from events.catalogue.traffic import WindowObserved
from events.errors import EventTooLarge
from handlers.routes import Route
from handlers.traffic.passages import Passage
from handlers.traffic.tallies import Lane
from handlers.traffic.totals import Totals
from handlers.traffic.units import Keys, Room, Sharing, check_of, sharing_of, slow_after_ms

_log = structlog.get_logger(__name__)

WINDOW_SECONDS: Final = 1
WINDOWS_WAITING_MAX: Final = 10_000


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
        self._lanes: dict[EntityId, Lane] = {}
        """Endpoint -> the lane of its newest policy that a request came by."""
        self._due: list[Lane] = []
        """With something to tell about this second, older policies' among them."""
        self._room = Room()
        self._waiting: OrderedDict[UUID, _Closed] = OrderedDict()
        """Windows that are not known to be on the log, by their command's id, oldest first."""
        self._closed = asyncio.Event()
        self.totals = Totals()
        """Of all windows since the start."""
        self.dropped = 0
        """Windows that did not fit while the log was away."""

    def begin(
        self, route: Route, decision: Decision, *, key: int | None, after: Passage | None = None
    ) -> Passage:
        """A request, decided by the route's table, is under way.

        `key`: the bucket of its routing key; None if it has none that counts. `after`: its attempt
        before this one, which ends here; together they are one request and one unit.
        """
        lane = self._lanes.get(route.entity)
        if lane is None or lane.table is not route.table:
            lane = self._turn(route, lane)
        tally = lane.version(decision.version)
        if after is not None:
            after.left()
        keys = lane.keys if decision.rule is None else None
        if keys is not None:
            if after is not None and after.lane.keys is keys:
                keys = after.keys
            elif not keys.seen(key, tally.units):
                keys = None
        return Passage(lane, decision.version, tally, keys=keys, key=key)

    def in_flight(self) -> Iterable[tuple[EntityId, str, int]]:
        """Endpoint, version and how many requests are under way there, under any policy.

        May be asked in any thread.
        """
        for lane in {*self._lanes.values(), *self._due}:
            for version, tally in lane.versions.copy().items():
                yield lane.entity, version, tally.in_flight

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

    def _turn(self, route: Route, before: Lane | None) -> Lane:
        """The lane of another policy."""
        lane = Lane(
            EntityId(route.entity.tenant, "traffic", route.entity.id),
            route.table,
            keys=self._keys(sharing_of(route), None if before is None else before.keys),
            slow_after_ms=slow_after_ms(route),
            check=check_of(route),
            due=self._due,
        )
        self._lanes[route.entity] = lane
        return lane

    def _keys(self, sharing: Sharing | None, before: Keys | None) -> Keys | None:
        """They are forgotten when others come to share the endpoint."""
        if before is not None:
            if before.sharing == sharing:
                return before
            before.retire()
        return None if sharing is None else Keys(sharing, self._room)

    def _close_window(self) -> None:
        start = datetime.fromtimestamp(self._second, UTC)
        self._second = self._next_second()
        due = self._due.copy()
        self._due.clear()
        for lane in due:
            self._close(lane, start)
            lane.begin_second()
        while len(self._waiting) > WINDOWS_WAITING_MAX:
            self._waiting.popitem(last=False)
            self.dropped += 1
        self._closed.set()

    def _close(self, lane: Lane, start: datetime) -> None:
        window = WindowObserved(
            gateway=self._gateway,
            start=start,
            seconds=WINDOW_SECONDS,
            policy=lane.table.position,
            versions={name: tally.window() for name, tally in lane.versions.items()},
            shadows={name: tally.window() for name, tally in lane.shadows.items()},
        )
        left_out = {name: tally.units.left_out for name, tally in lane.versions.items()}
        self.totals.add(lane.entity, window, left_out=left_out)
        metadata = Metadata(actor=f"gateway:{self._gateway}", time=start)
        self._waiting[metadata.command_id] = _Closed(
            entity=lane.entity, window=window, metadata=metadata
        )

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

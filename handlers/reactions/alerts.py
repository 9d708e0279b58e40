"""Alerts: raised when a version plainly fails, cleared when that is long enough ago.

A critical alert about the newest version rolls it back in the same append, so from the window that
shows the burst to the rollback is one decision. Alerts of people end here too: whoever raised one
and fixed the cause need not remember it.

It may die and start anywhere: ids are derived from what an alert is about, and a timer that is set
again replaces itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

import msgspec
import structlog

from engine.analysis.bursts import Alarm, Recent
from engine.decisions import endpoint
from engine.decisions.decider import Refused
from events import EntityId, EventLog, InvalidIdentifier, LogError, MalformedEvent, Metadata
from events.catalogue.traffic import WindowObserved
from events.timers import Timers
from handlers.commands import CommandHandler
from handlers.routes import Route
from handlers.routing import Routing

_log = structlog.get_logger(__name__)

TIMER_KIND: Final = "alert"
ENDPOINTS_WATCHED_MAX: Final = 10_000
RETRY_SECONDS: Final = 0.5
_NAMESPACE: Final = UUID("1b7c46b5-93a1-5c7e-8d5c-0f4a3d7b9e21")


class Quiet(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of an alert's timer."""

    tenant: str
    endpoint: str
    alert_id: str


class Alerts:
    """The reaction. Run it under a lease."""

    def __init__(
        self,
        *,
        routing: Routing,
        commands: CommandHandler,
        traffic: EventLog,
        timers: Timers,
        watched: str | None,
        quiet_s: float,
        now: Callable[[], datetime],
    ) -> None:
        """`watched`: the windows in which failure is looked for, a pattern of subjects; None:
        alerts are raised by people alone. `quiet_s`: an alert clears when its cause was not seen
        for so long.
        """
        self._routing = routing
        self._commands = commands
        self._traffic = traffic
        self._timers = timers
        self._watched = watched
        self._quiet = timedelta(seconds=quiet_s)
        self._now = now
        self._recent: dict[EntityId, Recent] = {}
        self._raised: dict[EntityId, str] = {}
        """Endpoint -> the last alert raised about it here."""
        self._armed: set[str] = set()
        self._last_seen: dict[tuple[EntityId, str | None], datetime] = {}
        """When a version of an endpoint was last seen to fail plainly, by this process."""

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            if self._watched is not None:
                tasks.create_task(self._watch(self._watched))
            tasks.create_task(self._arm_all())
            tasks.create_task(self._wake())

    async def _watch(self, pattern: str) -> None:
        after = await self._traffic.position()
        while True:
            try:
                async for recorded in self._traffic.subscribe(pattern, after=after):
                    after = recorded.position
                    if isinstance(recorded.event, WindowObserved):
                        entity = EntityId(recorded.entity.tenant, "endpoint", recorded.entity.id)
                        await self._look(entity, recorded.event)
            except MalformedEvent as error:
                after = error.position
            except LogError as error:
                _log.warning("windows not watched", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _look(self, entity: EntityId, window: WindowObserved) -> None:
        route = self._routing.routes.get((entity.tenant, entity.id))
        if route is None:
            return
        recent = self._recent_of(entity)
        recent.observe(window)
        if window.policy != route.table.position:
            return  # of a policy that is over, or that this process has yet to hear of
        version = route.state.newest
        alarm = recent.alarm(version)
        if alarm is not None:
            self._last_seen[entity, version] = self._now()
            await self._raise(route, alarm, version)

    def _recent_of(self, entity: EntityId) -> Recent:
        while entity not in self._recent and len(self._recent) >= ENDPOINTS_WATCHED_MAX:
            forgotten = next(iter(self._recent))
            del self._recent[forgotten]
            self._raised.pop(forgotten, None)
        return self._recent.setdefault(entity, Recent())

    async def _raise(self, route: Route, alarm: Alarm, version: str) -> None:
        """Once under each policy: one that brings a bad version back is none the better for an
        alert that is still open."""
        about = f"{route.entity}:{version}:{alarm.kind}:{route.table.position}"
        alert_id = str(uuid5(_NAMESPACE, about))
        if self._raised.get(route.entity) == alert_id:
            return
        command = endpoint.RaiseAlert(
            alert_id=alert_id,
            kind=alarm.kind,
            severity="critical",
            version=version,
            detail=alarm.detail,
        )
        try:
            await self._do(route.entity, command, alert_id)
        except (LogError, Refused) as error:  # the next window comes in a second
            _log.warning("alert not raised", endpoint=str(route.entity), error=str(error))
        else:
            self._raised[route.entity] = alert_id

    async def _arm_all(self) -> None:
        """A timer for each open alert."""
        while True:
            position = self._routing.position
            settled = True
            alarmed = self._routing.alarmed()
            self._forget_all_but(alarmed)
            for route in alarmed:
                for alert in route.state.alerts:
                    settled = await self._arm(route.entity, alert.alert_id) and settled
            if settled:
                await self._routing.reach(position + 1)
            else:
                await asyncio.sleep(RETRY_SECONDS)

    def _forget_all_but(self, alarmed: list[Route]) -> None:
        self._armed &= {alert.alert_id for route in alarmed for alert in route.state.alerts}
        entities = {route.entity for route in alarmed}
        self._last_seen = {key: at for key, at in self._last_seen.items() if key[0] in entities}

    async def _arm(self, entity: EntityId, alert_id: str) -> bool:
        if alert_id in self._armed:
            return True
        try:
            await self._set(entity, alert_id, due=self._now() + self._quiet)
        except LogError as error:
            _log.warning("alert has no timer yet", endpoint=str(entity), error=str(error))
            return False
        self._armed.add(alert_id)
        return True

    async def _set(self, entity: EntityId, alert_id: str, *, due: datetime) -> None:
        payload = Quiet(tenant=entity.tenant, endpoint=entity.id, alert_id=alert_id)
        name = f"{TIMER_KIND}.{entity.tenant}.{uuid5(_NAMESPACE, f'{entity.id}:{alert_id}')}"
        await self._timers.set(name, due=due, payload=msgspec.json.encode(payload))

    async def _wake(self) -> None:
        async for wake in self._timers.wakes(TIMER_KIND):
            try:
                quiet = msgspec.json.decode(wake.payload, type=Quiet)
                entity = EntityId(quiet.tenant, "endpoint", quiet.endpoint)
            except (msgspec.MsgspecError, InvalidIdentifier) as error:
                _log.error("not a timer of ours", timer=wake.timer, error=str(error))
                await wake.done()
                continue
            try:
                await self._clear(entity, quiet.alert_id)
            except (LogError, Refused) as error:
                _log.warning("alert not cleared", endpoint=str(entity), error=str(error))
                continue  # it comes again
            await wake.done()

    async def _clear(self, entity: EntityId, alert_id: str) -> None:
        """Unless its cause was seen since: then later."""
        quiet_at = self._quiet_at(entity, alert_id)
        if quiet_at is not None and quiet_at > self._now():
            await self._set(entity, alert_id, due=quiet_at)
            return
        reason = f"its cause was not seen for {self._quiet.total_seconds():g} s"
        command = endpoint.ClearAlert(alert_id=alert_id, reason=reason)
        await self._do(entity, command, f"clear:{alert_id}")

    def _quiet_at(self, entity: EntityId, alert_id: str) -> datetime | None:
        route = self._routing.routes.get((entity.tenant, entity.id))
        alerts = route.state.alerts if route is not None else ()
        version = next((alert.version for alert in alerts if alert.alert_id == alert_id), None)
        seen = self._last_seen.get((entity, version))
        return None if seen is None else seen + self._quiet

    async def _do(self, entity: EntityId, command: endpoint.Command, about: str) -> None:
        metadata = Metadata(
            command_id=uuid5(_NAMESPACE, f"{type(command).__name__}:{about}"),
            time=self._now(),
            actor="reaction:alerts",
        )
        await self._commands.handle(endpoint.DECIDER, entity, command, metadata=metadata)

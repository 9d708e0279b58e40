"""Rollouts go on by themselves: the next step when one has passed, back when the candidate fails.

It looks whenever a window arrives and whenever a hold ends; holds are durable timers, so it may die
and start anywhere at any time. Command ids are derived from the rollout and its step, and a step
that is over is never ended again: none is lost and none is taken twice, however many run this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

import msgspec
import structlog

from engine.analysis.evidence import Judgement
from engine.analysis.stepping import (
    Abort,
    Action,
    Advance,
    Hold,
    Wait,
    next_action,
    settled_at,
)
from engine.decisions import endpoint
from engine.decisions.decider import Refused
from events import (
    EntityId,
    EventLog,
    InvalidIdentifier,
    LogError,
    MalformedEvent,
    Metadata,
    Recorded,
)
from events.catalogue.endpoints import Verdict
from events.catalogue.traffic import WindowObserved
from events.log import ALL_TRAFFIC
from events.timers import Timers
from handlers.commands import CommandHandler
from handlers.judging import Judging
from handlers.routes import Route
from handlers.routing import Routing

_log = structlog.get_logger(__name__)

TIMER_KIND: Final = "rollout"
RETRY_SECONDS: Final = 0.5
SAMPLE_RATIO: Final = "sample_ratio"
_NAMESPACE: Final = UUID("c2a0f6de-4b1f-5f0a-a7d8-6f3c0b9e5d47")


class HoldEnd(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of a hold's timer."""

    tenant: str
    endpoint: str
    rollout_id: str
    step: int
    hold_until: datetime


class Rollouts:
    """The reaction. Run it under a lease."""

    def __init__(
        self,
        *,
        routing: Routing,
        commands: CommandHandler,
        judging: Judging,
        traffic: EventLog,
        timers: Timers,
        now: Callable[[], datetime],
    ) -> None:
        self._routing = routing
        self._commands = commands
        self._judging = judging
        self._traffic = traffic
        self._timers = timers
        self._now = now
        self._armed: set[str] = set()

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._arm_all())
            tasks.create_task(self._watch())
            tasks.create_task(self._wake())

    async def _arm_all(self) -> None:
        """A timer for each hold."""
        while True:
            position = self._routing.position
            settled = True
            armed: set[str] = set()
            for route in self._routing.rolling():
                name = await self._armed_timer(route)
                settled = settled and name is not None
                armed.add(name or "")
            self._armed = armed
            if settled:
                await self._routing.reach(position + 1)
            else:
                await asyncio.sleep(RETRY_SECONDS)

    async def _armed_timer(self, route: Route) -> str | None:
        """The name of the hold's timer, which is set; None if that failed."""
        rollout = _live(route)
        about = f"{route.entity.id}:{rollout.rollout_id}:{rollout.step}:{rollout.hold_until}"
        name = f"{TIMER_KIND}.{route.entity.tenant}.{uuid5(_NAMESPACE, about)}"
        if rollout.held is not None or name in self._armed:
            return name
        payload = HoldEnd(
            tenant=route.entity.tenant,
            endpoint=route.entity.id,
            rollout_id=rollout.rollout_id,
            step=rollout.step,
            hold_until=rollout.hold_until,
        )
        due = settled_at(rollout.hold_until)
        try:
            await self._timers.set(name, due=due, payload=msgspec.json.encode(payload))
        except LogError as error:
            _log.warning("hold has no timer yet", endpoint=str(route.entity), error=str(error))
            return None
        return name

    async def _watch(self) -> None:
        """Look at a rollout whenever a window of its endpoint arrives."""
        after = await self._traffic.position()
        while True:
            try:
                async for batch in self._traffic.subscribe_batches(ALL_TRAFFIC, after=after):
                    after = batch[-1].position
                    for key in _endpoints_of(batch):
                        await self._look(key)
            except MalformedEvent as error:
                after = error.position
            except LogError as error:
                _log.warning("windows not watched", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    async def _look(self, key: tuple[str, str]) -> None:
        route = self._routing.routes.get(key)
        if route is None or route.state.rollout is None:
            return
        try:
            await self._act(route, now=self._now())
        except (LogError, Refused) as error:  # the next window comes in a second
            _log.warning("rollout not moved", endpoint=str(route.entity), error=str(error))

    async def _wake(self) -> None:
        async for wake in self._timers.wakes(TIMER_KIND):
            try:
                end = msgspec.json.decode(wake.payload, type=HoldEnd)
                entity = EntityId(end.tenant, "endpoint", end.endpoint)
            except (msgspec.MsgspecError, InvalidIdentifier) as error:
                _log.error("not a hold of ours", timer=wake.timer, error=str(error))
                await wake.done()
                continue
            try:
                await self._end_hold(entity, end)
            except (LogError, Refused) as error:
                _log.warning("hold not ended", endpoint=str(entity), error=str(error))
                continue  # it comes again
            await wake.done()

    async def _end_hold(self, entity: EntityId, end: HoldEnd) -> None:
        route = self._routing.routes.get((entity.tenant, entity.id))
        rollout = route.state.rollout if route is not None else None
        if route is None or rollout is None:
            return
        found = (rollout.rollout_id, rollout.step, rollout.hold_until)
        if found == (end.rollout_id, end.step, end.hold_until):
            await self._act(route, now=max(self._now(), settled_at(rollout.hold_until)))

    async def _act(self, route: Route, *, now: datetime) -> None:
        """Do what the evidence and the clock say, if anything."""
        rollout = _live(route)
        judgement = await self._judging.judge(route)
        await self._warn(route, judgement)
        action = next_action(
            judgement.outcome,
            steps=rollout.steps,
            step=rollout.step,
            analysis=rollout.analysis,
            held=rollout.held,
            hold_over=now >= rollout.hold_until,
        )
        if judgement.outcome == "inconclusive" and now < settled_at(rollout.hold_until):
            return
        command = self._command(route, judgement, action)
        if command is not None:
            about = f"{rollout.rollout_id}:{rollout.step}:{rollout.hold_until}"
            await self._do(route.entity, command, about)

    def _command(
        self, route: Route, judgement: Judgement, action: Action
    ) -> endpoint.Command | None:
        rollout = _live(route)
        match action:
            case Wait():
                return None
            case Advance(reason=reason):
                return endpoint.AdvanceRollout(
                    rollout_id=rollout.rollout_id,
                    step=rollout.step,
                    reason=reason,
                    verdicts=judgement.verdicts,
                    now=self._now(),
                    resident=self._routing.resident(route.entity.tenant, route.state.model),
                )
            case Hold():
                return endpoint.HoldRollout(
                    rollout_id=rollout.rollout_id, step=rollout.step, verdicts=judgement.verdicts
                )
            case Abort(reason=reason):
                return endpoint.AbortRollout(
                    rollout_id=rollout.rollout_id,
                    reason=reason,
                    detail=_because(judgement),
                    verdicts=judgement.verdicts,
                )

    async def _warn(self, route: Route, judgement: Judgement) -> None:
        """A split that is not what it should be makes every comparison doubtful: tell people."""
        rollout = _live(route)
        doubtful = [v for v in judgement.verdicts if v.metric == SAMPLE_RATIO and _is_alarm(v)]
        for verdict in doubtful:
            if any(alert.kind == SAMPLE_RATIO for alert in route.state.alerts):
                continue
            command = endpoint.RaiseAlert(
                alert_id=str(uuid5(_NAMESPACE, f"{SAMPLE_RATIO}:{rollout.rollout_id}")),
                kind=SAMPLE_RATIO,
                severity="warning",
                version=rollout.candidate,
                detail=verdict.detail,
            )
            await self._do(route.entity, command, rollout.rollout_id)

    async def _do(self, entity: EntityId, command: endpoint.Command, about: str) -> None:
        metadata = Metadata(
            command_id=uuid5(_NAMESPACE, f"{type(command).__name__}:{about}"),
            time=self._now(),
            actor="reaction:rollouts",
        )
        await self._commands.handle(endpoint.DECIDER, entity, command, metadata=metadata)


def _endpoints_of(batch: Sequence[Recorded]) -> set[tuple[str, str]]:
    """Those that windows came of."""
    return {
        (each.entity.tenant, each.entity.id)
        for each in batch
        if isinstance(each.event, WindowObserved)
    }


def _live(route: Route) -> endpoint.Rollout:
    rollout = route.state.rollout
    assert rollout is not None, "only endpoints with a live rollout are looked at"
    return rollout


def _is_alarm(verdict: Verdict) -> bool:
    e_value, threshold = verdict.e_value, verdict.threshold
    return e_value is not None and threshold is not None and e_value >= threshold


def _because(judgement: Judgement) -> str:
    decisive = [v for v in judgement.verdicts if v.outcome == judgement.outcome]
    return "; ".join(f"{verdict.metric}: {verdict.detail}" for verdict in decisive)

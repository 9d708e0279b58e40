"""What the windows say: about rollouts that are under way, folded as they come, or for any span.

Guarantees: evidence is made of the log alone, so every process that asks gets the same, and a new
one gets it whole by reading the windows since the rollout began. Does not guarantee that the last
two seconds are in it: a window is on the log about a second after what it tells of.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from engine.analysis.evidence import Evidence, Judgement
from events import EntityId, EventLog, Position
from events.catalogue.endpoints import RolloutAdvanced, RolloutStarted
from events.catalogue.traffic import WindowObserved
from handlers.routes import Route

TRIALS_KNOWN_MAX: Final = 1_000
"""Rollouts whose evidence is kept; that of others is read again when it is asked for."""
BEHIND_SECONDS: Final = 0.02
WINDOWS_REMEMBERED_MAX: Final = 20_000
"""Of one endpoint: what its gateways send in some minutes."""
CLOCKS_APART_SECONDS: Final = 60.0
"""How much earlier than the rollout's start its first window may seem to be."""


class Judging:
    """Windows and the evidence in them. Methods raise LogError."""

    def __init__(self, *, log: EventLog, traffic: EventLog, now: Callable[[], datetime]) -> None:
        self._log = log
        self._traffic = traffic
        self._now = now
        self._trials: OrderedDict[tuple[EntityId, str], _Trial] = OrderedDict()

    async def judge(self, route: Route) -> Judgement:
        """What the evidence says by now about the endpoint's live rollout and its current step."""
        rollout = route.state.rollout
        assert rollout is not None, "only a rollout that is under way can be judged"
        trial = self._trial(route.entity, rollout.rollout_id)
        async with trial.reading:
            await trial.catch_up(self._log, self._traffic, route.table.position)
            return trial.evidence.judge(rollout.steps[rollout.step])

    async def windows(
        self, tenant: str, endpoint: str, *, since_s: float
    ) -> AsyncGenerator[WindowObserved, None]:
        """The endpoint's windows that began in the last `since_s` seconds, in order of the log."""
        start = self._now() - timedelta(seconds=since_s)
        recorded_since = start - timedelta(seconds=CLOCKS_APART_SECONDS)
        entity = EntityId(tenant, "traffic", endpoint)
        async with aclosing(self._traffic.read(entity, since=recorded_since)) as found:
            known = _Ids()
            async for recorded in found:
                event = recorded.event
                if not isinstance(event, WindowObserved) or event.start < start:
                    continue
                if known.is_new(recorded.id):
                    yield event

    def _trial(self, entity: EntityId, rollout_id: str) -> _Trial:
        key = (entity, rollout_id)
        trial = self._trials.get(key)
        if trial is None:
            trial = self._trials[key] = _Trial(entity, rollout_id)
            while len(self._trials) > TRIALS_KNOWN_MAX:
                self._trials.popitem(last=False)
        self._trials.move_to_end(key)
        return trial


class _Ids:
    """Tells windows that are on the log again: one whose append had no answer is sent until it
    has, and the server forgets what it has after two minutes."""

    def __init__(self) -> None:
        self._known: OrderedDict[UUID, None] = OrderedDict()

    def is_new(self, id_: UUID) -> bool:
        if id_ in self._known:
            return False
        self._known[id_] = None
        while len(self._known) > WINDOWS_REMEMBERED_MAX:
            self._known.popitem(last=False)
        return True


class _Trial:
    """One rollout: its evidence, and how far the two logs were read for it."""

    evidence: Evidence

    def __init__(self, entity: EntityId, rollout_id: str) -> None:
        self._entity = entity
        self._windows_of = EntityId(entity.tenant, "traffic", entity.id)
        self._rollout_id = rollout_id
        self._policy: Position = 0
        self._window: Position = 0
        self._ids = _Ids()
        self.reading = asyncio.Lock()

    async def catch_up(self, log: EventLog, traffic: EventLog, policy: Position) -> None:
        """Read on; `policy` is the position of the one in force."""
        if self._policy < policy:
            await self._read_steps(log)
        while self._policy < policy:  # a replica may answer that does not have it yet
            await asyncio.sleep(BEHIND_SECONDS)
            await self._read_steps(log)
        async with aclosing(
            traffic.read(self._windows_of, after=self._window, since=self._since)
        ) as windows:
            async for recorded in windows:
                if isinstance(recorded.event, WindowObserved) and self._ids.is_new(recorded.id):
                    self.evidence.observe(recorded.event)
                self._window = recorded.position

    async def _read_steps(self, log: EventLog) -> None:
        async with aclosing(log.read(self._entity, after=self._policy)) as history:
            async for recorded in history:
                self._policy = recorded.position
                event = recorded.event
                if not isinstance(event, RolloutStarted | RolloutAdvanced):
                    continue
                if event.rollout_id != self._rollout_id:
                    continue
                if isinstance(event, RolloutStarted):
                    self.evidence = Evidence(
                        baseline=event.baseline,
                        candidate=event.candidate,
                        analysis=event.analysis,
                    )
                    self._since = recorded.time - timedelta(seconds=CLOCKS_APART_SECONDS)
                    self._steps = event.steps
                    self._enter(0, recorded.position)
                else:
                    self._enter(event.step, recorded.position)

    def _enter(self, step: int, policy: Position) -> None:
        share = self._steps[step].weight / 100
        self.evidence.enter(step=step, policy=policy, share=share)

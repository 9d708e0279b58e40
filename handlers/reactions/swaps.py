"""Swaps end: completed when every serving node has the version, failed when it cannot be loaded or
the deadline passes.

Everything it knows is on the log, so it may die and start anywhere at any time: command ids are
derived from the swap's, and ending an ended swap writes nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

import msgspec
import structlog

from engine.decisions import endpoint
from engine.decisions.decider import Refused
from events import EntityId, InvalidIdentifier, LogError, Metadata
from events.catalogue.nodes import VersionRef
from events.timers import Timers
from handlers.commands import CommandHandler
from handlers.routes import Route
from handlers.routing import Routing

_log = structlog.get_logger(__name__)

TIMER_KIND: Final = "swap"
RETRY_SECONDS: Final = 0.5
_NAMESPACE: Final = UUID("6f1d2c1e-6f0d-5a0e-9a55-2d1b8c7f4a10")


class Deadline(msgspec.Struct, frozen=True, kw_only=True):
    """The payload of a swap's timer."""

    tenant: str
    endpoint: str
    swap_id: str


class Swaps:
    """The reaction. Run it under a lease."""

    def __init__(
        self,
        *,
        routing: Routing,
        commands: CommandHandler,
        timers: Timers,
        now: Callable[[], datetime],
    ) -> None:
        self._routing = routing
        self._commands = commands
        self._timers = timers
        self._now = now
        self._armed: set[str] = set()

    async def run(self) -> None:
        """For ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._wake())

    async def _follow(self) -> None:
        while True:
            position = self._routing.position
            settled = True
            pending = self._routing.swapping()
            self._armed &= {route.state.swap.swap_id for route in pending if route.state.swap}
            for route in pending:
                settled = await self._settle(route) and settled
            if settled:
                await self._routing.reach(position + 1)
            else:
                await asyncio.sleep(RETRY_SECONDS)

    async def _settle(self, route: Route) -> bool:
        """Bring one pending swap as far as it goes now; whether that worked."""
        swap = route.state.swap
        assert swap is not None
        try:
            if swap.swap_id not in self._armed:
                await self._arm(route.entity, swap.swap_id, swap.deadline)
            command = self._verdict(route)
            if command is not None:
                await self._end(route.entity, swap.swap_id, command)
        except (LogError, Refused) as error:
            _log.warning("swap not settled", endpoint=str(route.entity), error=str(error))
            return False
        return True

    def _verdict(self, route: Route) -> endpoint.CompleteSwap | endpoint.FailSwap | None:
        swap = route.state.swap
        assert swap is not None
        tenant, model = route.entity.tenant, route.state.model
        ref = VersionRef(tenant=tenant, model=model, version=swap.to_version)
        nodes = list(self._routing.serving_nodes())
        if nodes and all(ref in state.resident for _, state in nodes):
            resident = self._routing.resident(tenant, model)
            return endpoint.CompleteSwap(swap_id=swap.swap_id, resident=resident)
        for node_id, _ in nodes:
            failure = self._routing.failures.get((node_id, ref))
            if failure is not None and failure.position > route.swap_position:
                detail = f"{node_id}: {failure.reason}: {failure.detail}"
                return endpoint.FailSwap(swap_id=swap.swap_id, reason="load_failed", detail=detail)
        if self._now() >= swap.deadline:
            return _timed_out(swap.swap_id)
        return None

    async def _wake(self) -> None:
        async for wake in self._timers.wakes(TIMER_KIND):
            try:
                due = msgspec.json.decode(wake.payload, type=Deadline)
                entity = EntityId(due.tenant, "endpoint", due.endpoint)
            except (msgspec.MsgspecError, InvalidIdentifier) as error:
                _log.error("not a deadline of ours", timer=wake.timer, error=str(error))
                await wake.done()
                continue
            try:
                await self._end(entity, due.swap_id, _timed_out(due.swap_id))
            except (LogError, Refused) as error:
                _log.warning("deadline not handled", endpoint=str(entity), error=str(error))
                continue  # it comes again
            await wake.done()

    async def _arm(self, entity: EntityId, swap_id: str, deadline: datetime) -> None:
        payload = Deadline(tenant=entity.tenant, endpoint=entity.id, swap_id=swap_id)
        await self._timers.set(
            _timer(entity, swap_id), due=deadline, payload=msgspec.json.encode(payload)
        )
        self._armed.add(swap_id)

    async def _end(
        self, entity: EntityId, swap_id: str, command: endpoint.CompleteSwap | endpoint.FailSwap
    ) -> None:
        verb = type(command).__name__
        metadata = Metadata(
            command_id=uuid5(_NAMESPACE, f"{verb}:{swap_id}"),
            time=self._now(),
            actor="reaction:swaps",
            causation_id=swap_id,
        )
        await self._commands.handle(endpoint.DECIDER, entity, command, metadata=metadata)
        if swap_id in self._armed:
            self._armed.discard(swap_id)
            await self._timers.cancel(_timer(entity, swap_id))


def _timer(entity: EntityId, swap_id: str) -> str:
    """One for each swap: whoever cancels an ended one's must not cancel the next one's."""
    return f"{TIMER_KIND}.{entity.tenant}.{uuid5(_NAMESPACE, f'{entity.id}:{swap_id}')}"


def _timed_out(swap_id: str) -> endpoint.FailSwap:
    return endpoint.FailSwap(
        swap_id=swap_id, reason="timeout", detail="not resident on every node in time"
    )

"""A node: a process that executes versions, for as long as it holds its lease.

What endpoints route to, would roll back to or are about to swap to is loaded without being asked
and never evicted. A node that lost its lease (it was paused, or cut off) joins again and announces
anew what it still holds.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any, Final

import msgspec
import structlog

from engine.decisions import node
from engine.decisions.decider import Refused
from engine.runtimes import (
    LoadFailed,
    Residency,
    RuntimeSettings,
    available_runtimes,
    create_runtime,
)
from events import EntityId, LogError, Metadata, Position
from events.bus import Bus, Service
from events.catalogue.nodes import VersionRef
from events.errors import LeaseLost, RemoteFailure
from events.event import SYSTEM_TENANT
from events.leases import Leases
from handlers.batching import BatchingReply, batching_of, batching_subject
from handlers.commands import CommandHandler
from handlers.loading import Loader
from handlers.local import LocalExecutor
from handlers.reactions.leader import keep, let_go
from handlers.routing import Routing

_log = structlog.get_logger(__name__)

MEASURE_SECONDS: Final = 10.0
REJOIN_SECONDS: Final = 0.5
FOLLOW_SECONDS: Final = 5.0
"""How long a load waits for this node to have folded the version's registration."""


class LoadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asked of `node.<id>.load`: have this version resident."""

    version: VersionRef
    position: Position
    """Where the version's registration can be seen."""


class LoadReply(msgspec.Struct, frozen=True, kw_only=True):
    position: Position
    """Where the version counts as resident here."""


class UnloadRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Asked of `node.<id>.unload`: let this version go, unless an endpoint needs it."""

    version: VersionRef
    position: Position
    """As of which no endpoint needs it."""


class UnloadReply(msgspec.Struct, frozen=True, kw_only=True):
    position: Position
    """Where the version does not count as resident here."""


def control_subject(node_id: str) -> str:
    return f"node.{node_id}.load"


def unload_subject(node_id: str) -> str:
    return f"node.{node_id}.unload"


class NodeWorker:
    """One node."""

    def __init__(
        self,
        *,
        node_id: str,
        holder: str,
        budget_bytes: int,
        runtimes: RuntimeSettings,
        routing: Routing,
        commands: CommandHandler,
        bus: Bus,
        leases: Leases,
        now: Callable[[], datetime],
    ) -> None:
        self.node_id = node_id
        self._holder = holder
        """This process: another one with our node id must not hold our lease."""
        self._entity = EntityId(SYSTEM_TENANT, "node", node_id)
        self._runtimes = runtimes
        self._routing = routing
        self._commands = commands
        self._bus = bus
        self._leases = leases
        self._now = now
        self._residency = Residency(
            budget_bytes=budget_bytes,
            create=lambda registered: create_runtime(registered, runtimes),
            pinned=lambda: routing.pinned,
        )
        self.executor = LocalExecutor(node_id=node_id, residency=self._residency, bus=bus)
        self._loader = Loader(
            routing=routing,
            residency=self._residency,
            report=self._report,
            serve=self.executor.serve,
        )

    @property
    def announced(self) -> bool:
        """Whether the log counts this node among those that serve."""
        state = self._routing.nodes.get(self.node_id)
        return state is not None and state.status == "joined"

    async def batching(self) -> BatchingReply:
        """What the schedulers of the versions here say of themselves, in bounded time."""
        return await batching_of(self._residency.runtimes)

    async def run(self) -> None:
        """Join and serve until cancelled; then leave cleanly, which takes as long as the requests
        under way may take, and cannot be cancelled."""
        controls = [
            await self._bus.serve(subject, handle, queue=self.node_id)
            for subject, handle in (
                (control_subject(self.node_id), self._handle_load),
                (unload_subject(self.node_id), self._handle_unload),
                (batching_subject(self.node_id), self._handle_batching),
            )
        ]
        try:
            while True:
                try:
                    await self._serve_under_lease()
                except* (LeaseLost, LogError, Refused) as errors:
                    for error in errors.exceptions:
                        _log.warning("node joins again", node=self.node_id, error=str(error))
                await self._let_go()
                await asyncio.sleep(REJOIN_SECONDS)
        finally:
            await _done(self._end(controls))

    async def settled(self, *, within_s: float) -> bool:
        """Whether everything that takes traffic came to be served here, or failed to load, in
        time. What is only on its way in (a pending swap) is not waited for."""
        try:
            async with asyncio.timeout(within_s):
                while not self.announced or not all(
                    map(self._loader.is_decided, self._routing.routed())
                ):
                    await self._routing.reach(self._routing.position + 1)
        except TimeoutError:
            return False
        return True

    async def _serve_under_lease(self) -> None:
        lease = await self._leases.acquire(f"node.{self.node_id}", holder=self._holder)
        if lease is None:
            raise LeaseLost(f"node.{self.node_id}", self._holder)
        await self._join()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(keep(self._leases, lease))
            tasks.create_task(self._follow())
            tasks.create_task(self._measure())

    async def _join(self) -> None:
        position = await self._report(
            node.Join(
                memory_budget_bytes=self._residency.budget_bytes,
                runtimes=available_runtimes(self._runtimes),
            )
        )
        await self._loader.announce_all()
        await self._routing.reach(position)

    async def _follow(self) -> None:
        """Do what the log asks of this node, for ever."""
        while True:
            position = self._routing.position
            state = self._routing.nodes[self.node_id]
            patience_s: float | None = None
            if state.status == "draining":
                await self._loader.unload_all()
            elif state.status == "joined":
                await self._loader.follow()
                patience_s = self._loader.patience_s()
            else:
                raise LeaseLost(f"node.{self.node_id}", self._holder)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._routing.reach(position + 1)

    async def _measure(self) -> None:
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            await self._loader.measure()

    async def _handle_load(self, subject: str, payload: bytes) -> bytes:
        request = msgspec.msgpack.decode(payload, type=LoadRequest)
        await self._catch_up(subject, request.position)
        try:
            position = await self._loader.load(request.version)
        except LoadFailed as error:
            raise RemoteFailure(subject, "runtime_failed", str(error)) from error
        return msgspec.msgpack.encode(LoadReply(position=position))

    async def _handle_unload(self, subject: str, payload: bytes) -> bytes:
        request = msgspec.msgpack.decode(payload, type=UnloadRequest)
        await self._catch_up(subject, request.position)
        if request.version in self._routing.pinned:
            raise RemoteFailure(subject, "conflict", f"an endpoint needs {request.version}")
        try:
            position = await self._loader.unload(request.version)
        except LogError as error:
            raise RemoteFailure(subject, "unavailable", str(error)) from error
        return msgspec.msgpack.encode(UnloadReply(position=position))

    async def _handle_batching(self, _subject: str, _payload: bytes) -> bytes:
        return msgspec.msgpack.encode(await self.batching())

    async def _catch_up(self, subject: str, position: Position) -> None:
        try:
            async with asyncio.timeout(FOLLOW_SECONDS):
                await self._routing.reach(position)
        except TimeoutError:
            raise RemoteFailure(subject, "unavailable", "this node is behind the log") from None

    async def _report(self, command: node.Command) -> Position:
        outcome = await self._commands.handle(
            node.DECIDER,
            self._entity,
            command,
            metadata=Metadata(time=self._now(), actor=f"node:{self.node_id}"),
        )
        return outcome.position

    async def _end(self, controls: list[Service]) -> None:
        await asyncio.gather(*(control.stop() for control in controls))
        await self._loader.stop()
        is_heard = await self._leave()
        await self._residency.close()
        if is_heard:  # last: who takes it joins, and must not be told to have left
            await self._let_go()

    async def _leave(self) -> bool:
        """Whether the log heard of it; a lease runs out by itself."""
        try:
            await self._report(node.Leave())
        except (LogError, Refused) as error:
            _log.warning("left without saying so", node=self.node_id, error=str(error))
            return isinstance(error, Refused)
        return True

    async def _let_go(self) -> None:
        await let_go(self._leases, f"node.{self.node_id}", holder=self._holder)


async def _done(work: Coroutine[Any, Any, None]) -> None:
    """All of it, however often this task is cancelled meanwhile."""
    task = asyncio.create_task(work)
    while not task.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({task})
    task.result()

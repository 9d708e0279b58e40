"""A node: loads what endpoints need, serves it, tells the log what is resident.

Guarantees: a version is announced on the log after it answers on its subject, and stops answering
before its absence is announced; what endpoints route to, would roll back to or are about to swap to
is loaded without being asked and never evicted. A node that lost its lease (it was paused, or cut
off) joins again and announces anew what it still holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

import msgspec
import structlog

from engine.decisions import node
from engine.decisions.decider import Refused
from engine.runtimes import (
    LoadFailed,
    NotResident,
    Residency,
    RuntimeFailed,
    RuntimeSettings,
    available_runtimes,
    create_runtime,
)
from events import EntityId, LogError, Metadata, Position
from events.bus import Bus, Service
from events.catalogue.models import VersionRegistered
from events.catalogue.nodes import VersionRef
from events.errors import LeaseLost, RemoteFailure
from events.event import SYSTEM_TENANT
from events.leases import Lease, Leases
from handlers.commands import CommandHandler
from handlers.executions import (
    QUEUE,
    DeadlineExceeded,
    Executed,
    Execution,
    InferenceFailed,
    NotServed,
    VersionFailed,
    decode_execution,
    encode_executed,
    subject_of,
)
from handlers.reactions.leader import keep
from handlers.routing import Routing

_log = structlog.get_logger(__name__)

RELOAD_SECONDS: Final = 5.0
"""After a failed load, before a version that endpoints need is tried again."""
CRASHED_SECONDS: Final = 0.5
"""After a crash, likewise."""
MEASURE_SECONDS: Final = 10.0
REPORTED_CHANGE: Final = 0.1
"""A measured size that differs by more than this share is reported again."""
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


class _Serving:
    """A version that answers requests."""

    def __init__(self, service: Service, memory_bytes: int, load_ms: float) -> None:
        self.service = service
        self.position: Position = 0
        """Of the announcement; 0 until it is on the log."""
        self.memory_bytes = memory_bytes
        self.load_ms = load_ms

    def is_off(self, memory_bytes: int) -> bool:
        """Whether the announced size is no longer about right."""
        return abs(memory_bytes - self.memory_bytes) > REPORTED_CHANGE * self.memory_bytes


class _Failed(NamedTuple):
    """A load that failed, or a version that crashed."""

    position: Position
    retry_at: float
    """By the monotonic clock."""


def control_subject(node_id: str) -> str:
    return f"node.{node_id}.load"


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
        self._residency.on_unloaded = self._depart
        self._serving: dict[VersionRef, _Serving] = {}
        self._loading: dict[VersionRef, asyncio.Task[Position]] = {}
        self._requested: Counter[VersionRef] = Counter()
        """Loads that somebody waits for, whether or not an endpoint needs them yet."""
        self._failed: dict[VersionRef, _Failed] = {}

    @property
    def announced(self) -> bool:
        """Whether the log counts this node among those that serve."""
        state = self._routing.nodes.get(self.node_id)
        return state is not None and state.status == "joined"

    async def execute(self, ref: VersionRef, execution: Execution) -> Executed:
        """In this process. Raises VersionFailed, NotServed, DeadlineExceeded."""
        try:
            async with self._residency.lease(ref) as runtime:
                began = time.perf_counter()
                async with asyncio.timeout(execution.timeout_s):
                    outputs = await runtime.infer(execution.inputs, execution.parameters)
                took_ms = (time.perf_counter() - began) * 1_000
        except NotResident as error:
            raise NotServed(f"{ref} is not resident on {self.node_id}") from error
        except RuntimeFailed as error:
            raise VersionFailed(str(error)) from error
        except TimeoutError:
            raise DeadlineExceeded(f"{ref} did not answer in {execution.timeout_s:.3f} s") from None
        return Executed(outputs=outputs, runtime_ms=took_ms)

    async def run(self) -> None:
        """Join and serve until cancelled; then leave cleanly."""
        control = await self._bus.serve(
            control_subject(self.node_id), self._handle_load, queue=self.node_id
        )
        try:
            while True:
                try:
                    await self._serve_under_lease()
                except* (LeaseLost, LogError, Refused) as errors:
                    for error in errors.exceptions:
                        _log.warning("node joins again", node=self.node_id, error=str(error))
                await asyncio.sleep(REJOIN_SECONDS)
        finally:
            await control.stop()
            await self._leave()

    async def settled(self, *, within_s: float) -> bool:
        """Whether everything that takes traffic came to be served here, or failed to load, in
        time. What is only on its way in (a pending swap) is not waited for."""
        try:
            async with asyncio.timeout(within_s):
                while not self.announced or any(
                    ref not in self._serving and ref not in self._failed
                    for ref in self._routing.routed()
                ):
                    await self._routing.reach(self._routing.position + 1)
        except TimeoutError:
            return False
        return True

    async def _serve_under_lease(self) -> None:
        lease = await self._leases.acquire(f"node.{self.node_id}", holder=self._holder)
        if lease is None:
            raise LeaseLost(f"node.{self.node_id}", self._holder)
        try:
            await self._join()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(keep(self._leases, lease))
                tasks.create_task(self._follow())
                tasks.create_task(self._measure())
        finally:
            await self._release(lease)

    async def _join(self) -> None:
        position = await self._report(
            node.Join(
                memory_budget_bytes=self._residency.budget_bytes,
                runtimes=available_runtimes(self._runtimes),
            )
        )
        for ref, memory_bytes in self._residency.resident.items():
            position = await self._report(
                node.ReportLoaded(version=ref, memory_bytes=memory_bytes, load_ms=0.0)
            )
        await self._routing.reach(position)

    async def _follow(self) -> None:
        """Keep resident what endpoints need, drop what is retired, for ever."""
        while True:
            position = self._routing.position
            state = self._routing.nodes[self.node_id]
            if state.status == "draining":
                await self._unload_all()
            elif state.status == "joined":
                self._load_missing()
                await self._stop_unneeded_loads()
                await self._unload_retired()
            else:
                raise LeaseLost(f"node.{self.node_id}", self.node_id)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._until_retry_s()):
                    await self._routing.reach(position + 1)

    def _load_missing(self) -> None:
        for ref in list(self._routing.pinned):
            if ref not in self._serving and ref not in self._loading and self._may_try(ref):
                self._load_in_background(ref)

    async def _stop_unneeded_loads(self) -> None:
        """Of swaps that were given up."""
        pinned = self._routing.pinned
        for ref in [r for r in self._loading if r not in pinned and r not in self._requested]:
            await self._residency.unload(ref, "requested")

    def _may_try(self, ref: VersionRef) -> bool:
        failed = self._failed.get(ref)
        return (
            failed is None
            or time.monotonic() >= failed.retry_at
            or self._routing.asked_at(ref) > failed.position
        )

    def _until_retry_s(self) -> float | None:
        needed = [self._failed[ref].retry_at for ref in self._routing.pinned if ref in self._failed]
        return max(0.0, min(needed) - time.monotonic()) if needed else None

    async def _unload_retired(self) -> None:
        for ref in [ref for ref in self._serving if self._routing.is_retired(ref)]:
            await self._residency.unload(ref, "retired")

    async def _unload_all(self) -> None:
        for ref in list(self._serving):
            await self._residency.unload(ref, "requested")

    async def _measure(self) -> None:
        """Keep the budget by what versions take now, and tell of those that changed, for ever."""
        while True:
            await asyncio.sleep(MEASURE_SECONDS)
            await self._residency.settle()
            for ref, memory_bytes in self._residency.resident.items():
                serving = self._serving.get(ref)
                if serving is not None and serving.is_off(memory_bytes):
                    serving.memory_bytes = memory_bytes
                    await self._report(
                        node.ReportLoaded(
                            version=ref, memory_bytes=memory_bytes, load_ms=serving.load_ms
                        )
                    )

    async def _depart(self, ref: VersionRef, reason: node.UnloadReason) -> None:
        """Called by the residency when a version begins to leave."""
        serving = self._serving.pop(ref, None)
        if serving is None:
            return
        if reason == "crashed":
            self._note_failure(ref, CRASHED_SECONDS)
        await serving.service.stop()
        await self._report(node.ReportUnloaded(version=ref, reason=reason))

    async def _handle_load(self, subject: str, payload: bytes) -> bytes:
        request = msgspec.msgpack.decode(payload, type=LoadRequest)
        try:
            async with asyncio.timeout(FOLLOW_SECONDS):
                await self._routing.reach(request.position)
        except TimeoutError:
            raise RemoteFailure(subject, "unavailable", "this node is behind the log") from None
        self._requested[request.version] += 1
        try:
            position = await asyncio.shield(self._load_in_background(request.version))
        except LoadFailed as error:
            raise RemoteFailure(subject, "runtime_failed", str(error)) from error
        finally:
            self._requested[request.version] -= 1
            self._requested = +self._requested
        return msgspec.msgpack.encode(LoadReply(position=position))

    def _load_in_background(self, ref: VersionRef) -> asyncio.Task[Position]:
        task = self._loading.get(ref)
        if task is None:
            task = self._loading[ref] = asyncio.create_task(self._load(ref))
            task.add_done_callback(lambda done: self._loaded(ref, done))
        return task

    def _loaded(self, ref: VersionRef, task: asyncio.Task[Position]) -> None:
        del self._loading[ref]
        if not task.cancelled() and (error := task.exception()) is not None:
            self._note_failure(ref, RELOAD_SECONDS)
            _log.warning("load failed", node=self.node_id, version=str(ref), error=str(error))

    async def _load(self, ref: VersionRef) -> Position:
        """Load, serve, announce; the position of the announcement. Raises LoadFailed, LogError."""
        if ref in self._serving:
            return self._serving[ref].position
        try:
            loaded = await self._residency.ensure(ref, self._registration(ref))
        except LoadFailed as error:
            self._note_failure(ref, RELOAD_SECONDS)
            await self._report(
                node.ReportLoadFailed(version=ref, reason=error.reason, detail=error.detail)
            )
            raise
        service = await self._bus.serve(
            subject_of(ref), lambda _, payload: self._handle_inference(ref, payload), queue=QUEUE
        )
        # Before it is announced: whoever waits for the announcement finds it served.
        serving = self._serving[ref] = _Serving(service, loaded.memory_bytes, loaded.load_ms)
        self._failed.pop(ref, None)
        try:
            serving.position = await self._report(
                node.ReportLoaded(
                    version=ref, memory_bytes=loaded.memory_bytes, load_ms=loaded.load_ms
                )
            )
        except BaseException:
            del self._serving[ref]
            await service.stop()
            raise
        return serving.position

    def _note_failure(self, ref: VersionRef, retry_s: float) -> None:
        self._failed[ref] = _Failed(self._routing.position, time.monotonic() + retry_s)

    def _registration(self, ref: VersionRef) -> VersionRegistered:
        state = self._routing.models.get((ref.tenant, ref.model))
        found = state.versions.get(ref.version) if state is not None else None
        if found is None:
            raise LoadFailed("artifact", f"{ref} is not registered")
        return found

    async def _handle_inference(self, ref: VersionRef, payload: bytes) -> bytes:
        try:
            return encode_executed(await self.execute(ref, decode_execution(payload)))
        except InferenceFailed as failure:
            raise RemoteFailure(subject_of(ref), failure.code, str(failure)) from failure

    async def _report(self, command: node.Command) -> Position:
        outcome = await self._commands.handle(
            node.DECIDER,
            self._entity,
            command,
            metadata=Metadata(time=self._now(), actor=f"node:{self.node_id}"),
        )
        return outcome.position

    async def _leave(self) -> None:
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        for serving in self._serving.values():
            await serving.service.stop()
        try:
            await self._report(node.Leave())
        except (LogError, Refused) as error:
            _log.warning("left without saying so", node=self.node_id, error=str(error))
        await self._residency.close()

    async def _release(self, lease: Lease) -> None:
        with contextlib.suppress(LogError):
            await self._leases.release(lease)

"""The versions of one node: loaded when they are needed, served, announced, let go.

Guarantees: a version answers on its subject before it is announced on the log, and stops before its
absence is; one load per version at a time; a failed load of a version that endpoints need is tried
again after a while, or at once when a new swap asks for it; a load that was ended because nobody
needs it any more is no failure.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeAlias

import structlog

from engine.decisions import node
from engine.runtimes import LoadFailed, Residency, UnloadReason
from events import Position
from events.bus import Service
from events.catalogue.models import VersionRegistered
from events.catalogue.nodes import VersionRef
from handlers.routing import Routing

_log = structlog.get_logger(__name__)

RELOAD_SECONDS: Final = 5.0
"""After a failed load, before a version that endpoints need is tried again."""
CRASHED_SECONDS: Final = 0.5
"""After a crash, likewise."""
ENDING_SECONDS: Final = 0.1
"""How often a load that nobody needs is told to end: it may only be about to begin."""
REPORTED_CHANGE: Final = 0.1
"""A measured size that differs by more than this share is reported again."""

Report: TypeAlias = Callable[[node.Command], Awaitable[Position]]
"""Puts what the node has to say on the log; where it stands."""
Serve: TypeAlias = Callable[[VersionRef], Awaitable[Service]]
"""Has a resident version answer on its subjects. Raises LogUnavailable."""


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


class Loader:
    """Keeps a residency in step with what endpoints need."""

    def __init__(
        self, *, routing: Routing, residency: Residency, report: Report, serve: Serve
    ) -> None:
        self._routing = routing
        self._residency = residency
        self._report = report
        self._serve = serve
        self._serving: dict[VersionRef, _Serving] = {}
        self._loading: dict[VersionRef, asyncio.Task[Position]] = {}
        self._failed: dict[VersionRef, _Failed] = {}
        self._requested: Counter[VersionRef] = Counter()
        """Loads that somebody waits for, whether or not an endpoint needs them yet."""
        self._unwanted: set[VersionRef] = set()
        """Loads that are being ended."""
        self._gone: dict[VersionRef, UnloadReason] = {}
        """Departures the log has not been told of."""
        self._last_departure: Position = 0
        """Where the log was told of one."""
        residency.on_unloaded = self._depart

    def is_decided(self, ref: VersionRef) -> bool:
        """Whether the version is served here, or has failed to load."""
        return ref in self._serving or ref in self._failed

    async def load(self, ref: VersionRef) -> Position:
        """Have it served; where that is announced. Raises LoadFailed, LogError, Refused."""
        self._requested[ref] += 1
        try:
            return await asyncio.shield(self._load_in_background(ref))
        finally:
            self._requested[ref] -= 1
            self._requested = +self._requested

    async def unload(self, ref: VersionRef) -> Position:
        """Have it gone, whoever needs it; a position at which it does not count as resident here.

        A load under way is ended. Raises LogError if the log could not be told.
        """
        await self._end_load(ref)
        await self._residency.unload(ref, "requested")
        await self._tell_departures()  # what the residency could not tell, it only logged
        return self._last_departure

    async def follow(self) -> None:
        """Load what endpoints need and is missing; end loads nobody needs; drop what is retired.

        Call it after every event, and when `patience_s` have passed without one.
        """
        await self._tell_departures()
        pinned = self._routing.pinned
        for ref in list(pinned):
            if ref not in self._serving and ref not in self._loading and self._may_try(ref):
                self._load_in_background(ref)
        for ref in [r for r in self._loading if r not in pinned and r not in self._requested]:
            await self._end_load(ref)
        for ref in [ref for ref in self._serving if self._routing.is_retired(ref)]:
            await self._residency.unload(ref, "retired")

    def patience_s(self) -> float:
        """How long `follow` has nothing to do if nothing happens on the log.

        Bounded: a load that could not be reported leaves no event that would wake anyone.
        """
        failed = [
            self._failed[ref].retry_at - time.monotonic()
            for ref in self._routing.pinned
            if ref in self._failed and ref not in self._loading
        ]
        return max(0.0, min([RELOAD_SECONDS, *failed]))

    async def unload_all(self) -> None:
        for ref in list(self._loading):
            await self._end_load(ref)
        for ref in list(self._serving):
            await self._residency.unload(ref, "requested")

    async def announce_all(self) -> None:
        """Tell the log again what is served: it thinks there is nothing."""
        self._gone.clear()
        for ref, serving in list(self._serving.items()):
            if self._serving.get(ref) is serving:  # it may have left meanwhile
                serving.position = await self._report(_loaded(ref, serving))

    async def measure(self) -> None:
        """Keep the budget by what versions take now, and tell of those that changed."""
        await self._residency.settle()
        for ref, memory_bytes in self._residency.resident.items():
            serving = self._serving.get(ref)
            if serving is not None and serving.is_off(memory_bytes):
                serving.memory_bytes = memory_bytes
                await self._report(_loaded(ref, serving))

    async def stop(self) -> None:
        """Load nothing more and answer nothing more; what is resident stays until it is closed."""
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), return_exceptions=True)
        services = [serving.service for serving in self._serving.values()]
        await asyncio.gather(*(service.stop() for service in services))

    def _may_try(self, ref: VersionRef) -> bool:
        failed = self._failed.get(ref)
        return (
            failed is None
            or time.monotonic() >= failed.retry_at
            or self._routing.asked_at(ref) > failed.position
        )

    def _load_in_background(self, ref: VersionRef) -> asyncio.Task[Position]:
        task = self._loading.get(ref)
        if task is None:
            task = self._loading[ref] = asyncio.create_task(self._load(ref))
            task.add_done_callback(lambda done: self._load_ended(ref, done))
        return task

    def _load_ended(self, ref: VersionRef, task: asyncio.Task[Position]) -> None:
        del self._loading[ref]
        if task.cancelled() or (error := task.exception()) is None or ref in self._unwanted:
            return
        self._note_failure(ref, RELOAD_SECONDS)
        _log.warning("load failed", version=str(ref), error=str(error))

    async def _load(self, ref: VersionRef) -> Position:
        if ref in self._serving:
            return self._serving[ref].position
        try:
            # Before it is announced: whoever waits for the announcement finds it served.
            serving = await self._served(ref)
        except LoadFailed as error:
            if ref not in self._unwanted:
                self._note_failure(ref, RELOAD_SECONDS)
                await self._report(
                    node.ReportLoadFailed(version=ref, reason=error.reason, detail=error.detail)
                )
            raise
        try:
            serving.position = await self._report(_loaded(ref, serving))
        except BaseException:
            self._serving.pop(ref, None)
            self._gone[ref] = "requested"  # it may have been written
            await serving.service.stop()
            raise
        return serving.position

    async def _served(self, ref: VersionRef) -> _Serving:
        """Loaded, and answering. Raises LoadFailed, LogUnavailable."""
        if ref in self._unwanted:
            raise LoadFailed("runtime", "no longer needed")
        loaded = await self._residency.ensure(ref, self._registration(ref))
        service = await self._serve(ref)
        if ref not in self._residency.resident:
            await service.stop()
            raise LoadFailed("runtime", "gone again before it was served")
        serving = self._serving[ref] = _Serving(service, loaded.memory_bytes, loaded.load_ms)
        self._failed.pop(ref, None)
        self._gone.pop(ref, None)
        return serving

    async def _end_load(self, ref: VersionRef) -> None:
        task = self._loading.get(ref)
        if task is None:
            return
        self._unwanted.add(ref)
        try:
            while not task.done():
                await self._residency.unload(ref, "requested")
                await asyncio.wait([task], timeout=ENDING_SECONDS)
        finally:
            self._unwanted.discard(ref)

    async def _depart(self, ref: VersionRef, reason: UnloadReason) -> None:
        """Called by the residency when a version begins to leave."""
        serving = self._serving.pop(ref, None)
        if serving is None:
            return
        if reason == "crashed":
            self._note_failure(ref, CRASHED_SECONDS)
        self._gone[ref] = reason
        await serving.service.stop()
        await self._tell_departures()

    async def _tell_departures(self) -> None:
        for ref in list(self._gone):
            reason = self._gone.pop(ref, None)
            if reason is None:
                continue
            try:
                self._last_departure = await self._report(
                    node.ReportUnloaded(version=ref, reason=reason)
                )
            except BaseException:
                if ref not in self._serving:
                    self._gone.setdefault(ref, reason)
                raise

    def _note_failure(self, ref: VersionRef, retry_s: float) -> None:
        self._failed[ref] = _Failed(self._routing.position, time.monotonic() + retry_s)

    def _registration(self, ref: VersionRef) -> VersionRegistered:
        state = self._routing.models.get((ref.tenant, ref.model))
        found = state.versions.get(ref.version) if state is not None else None
        if found is None:
            raise LoadFailed("artifact", f"{ref} is not registered")
        return found


def _loaded(ref: VersionRef, serving: _Serving) -> node.ReportLoaded:
    return node.ReportLoaded(
        version=ref, memory_bytes=serving.memory_bytes, load_ms=serving.load_ms
    )

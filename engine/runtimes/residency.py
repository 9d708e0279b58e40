"""What is resident on a node: versions loaded and warmed, under a budget of bytes.

Guarantees:

- A version takes requests (`lease`) only between the end of its load and the begin of its unload;
  an unload waits for its requests, `drain_seconds` at most.
- One load per version at a time: whoever asks meanwhile gets the same one.
- Before a load its declared size is reserved, after it the measured one counts; to make room the
  least recently used versions are unloaded, never pinned or leased ones. What does not fit then is
  refused with LoadFailed("memory"), and a newcomer that turns out too large is unloaded again.
- When `ensure` or `settle` has returned, the measured sum is within the budget, unless pinned and
  leased versions alone have outgrown it since they were loaded.

Not guaranteed: that memory never exceeds the budget *during* a load; a version without a declared
size is only known once it is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import Final, Literal, TypeAlias

import msgspec
import structlog

from engine.runtimes.runtime import LoadFailed, Runtime
from events.catalogue.models import VersionRegistered
from events.catalogue.nodes import VersionRef

UnloadReason: TypeAlias = Literal["evicted", "retired", "requested", "crashed"]
"""As in the event VersionUnloaded."""
LOAD_SECONDS: Final = 600.0
DRAIN_SECONDS: Final = 30.0

_log = structlog.get_logger(__name__)


class NotResident(Exception):
    """The version is not loaded on this node, or is on its way out."""

    def __init__(self, ref: VersionRef) -> None:
        super().__init__(f"{ref} is not resident")
        self.ref = ref


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """A finished load."""

    memory_bytes: int
    """Measured after warming."""
    load_ms: float


class _Entry:
    def __init__(self, ref: VersionRef, runtime: Runtime, loaded: Loaded) -> None:
        self.ref = ref
        self.runtime = runtime
        self.loaded = loaded
        self.memory_bytes = loaded.memory_bytes
        self.leases = 0
        self.leaving: asyncio.Task[None] | None = None
        self.idle = asyncio.Event()
        self.idle.set()
        self.watch: asyncio.Task[None] | None = None


class Residency:
    """The versions of one node. One event loop, one owner."""

    on_unloaded: Callable[[VersionRef, UnloadReason], Awaitable[None]]
    """Awaited once for each version that leaves, except by `close`: when it takes no new request,
    before those in flight are waited for, and before any later load of it begins. Its errors are
    logged and do not keep the version."""

    def __init__(
        self,
        *,
        budget_bytes: int,
        create: Callable[[VersionRegistered], Runtime],
        pinned: Callable[[], Iterable[VersionRef]],
        load_seconds: float = LOAD_SECONDS,
        drain_seconds: float = DRAIN_SECONDS,
    ) -> None:
        self.on_unloaded = _nobody_listens
        self._budget_bytes = budget_bytes
        self._create = create
        self._pinned = pinned
        self._load_seconds = load_seconds
        self._drain_seconds = drain_seconds
        self._entries: dict[VersionRef, _Entry] = {}  # least recently used first
        self._loading: dict[VersionRef, asyncio.Task[Loaded]] = {}
        self._reserved: dict[VersionRef, int] = {}
        self._room = asyncio.Lock()

    @property
    def budget_bytes(self) -> int:
        return self._budget_bytes

    @property
    def used_bytes(self) -> int:
        """Measured, of all resident versions."""
        return sum(entry.memory_bytes for entry in self._entries.values())

    @property
    def resident(self) -> dict[VersionRef, int]:
        """Versions that take requests, least recently used first, with their measured bytes."""
        return {
            entry.ref: entry.memory_bytes
            for entry in self._entries.values()
            if entry.leaving is None
        }

    @property
    def runtimes(self) -> list[tuple[VersionRef, Runtime]]:
        """Of all that are loaded, also those on their way out. Looking at one is no use of it."""
        return [(entry.ref, entry.runtime) for entry in self._entries.values()]

    async def ensure(self, ref: VersionRef, registered: VersionRegistered) -> Loaded:
        """Load and warm the version if it is not resident. Raises LoadFailed.

        A caller that is cancelled leaves the load to the others; `unload` ends it.
        """
        await self._left(ref)
        entry = self._entries.get(ref)
        if entry is not None:
            self._touch(entry)
            return entry.loaded
        task = self._loading.get(ref)
        if task is None:
            task = asyncio.create_task(self._load(ref, registered), name=f"load {ref}")
            self._loading[ref] = task
            task.add_done_callback(lambda done: self._load_ended(ref, done))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise LoadFailed("runtime", "unloaded before it was ready") from None
            raise

    @asynccontextmanager
    async def lease(self, ref: VersionRef) -> AsyncIterator[Runtime]:
        """The version's runtime, for one request: it stays meanwhile. Raises NotResident."""
        entry = self._entries.get(ref)
        if entry is None or entry.leaving is not None:
            raise NotResident(ref)
        self._touch(entry)
        entry.leases += 1
        entry.idle.clear()
        try:
            yield entry.runtime
        finally:
            entry.leases -= 1
            if entry.leases == 0:
                entry.idle.set()

    async def unload(self, ref: VersionRef, reason: UnloadReason) -> None:
        """Take no further request, finish those in flight, free everything. Pinned or not.

        A load under way is ended. Does nothing if the version is not here.
        """
        task = self._loading.get(ref)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
        entry = self._entries.get(ref)
        if entry is not None:
            await self._leave(entry, reason)

    async def settle(self) -> None:
        """Measure every version again, and unload idle ones until the budget is kept."""
        for entry in list(self._entries.values()):
            entry.memory_bytes = await entry.runtime.memory_bytes()
        async with self._room:
            await self._free(0)

    async def close(self) -> None:
        """Unload everything. `on_unloaded` is not told: who closes it knows."""
        self.on_unloaded = _nobody_listens
        refs = [*self._loading, *self._entries]
        await asyncio.gather(*(self.unload(ref, "requested") for ref in refs))

    async def _load(self, ref: VersionRef, registered: VersionRegistered) -> Loaded:
        await self._reserve(ref, registered.memory_bytes or 0)
        started = perf_counter()
        runtime = self._create(registered)
        try:
            memory_bytes = await self._made_ready(runtime)
            load_ms = (perf_counter() - started) * 1000
            async with self._room:
                await self._admit(ref, memory_bytes)
                loaded = Loaded(memory_bytes=memory_bytes, load_ms=load_ms)
                self._enter(_Entry(ref, runtime, loaded))
        except BaseException:
            await runtime.close()
            raise
        return loaded

    async def _made_ready(self, runtime: Runtime) -> int:
        try:
            async with asyncio.timeout(self._load_seconds):
                await runtime.load()
                await runtime.warm()
                return await runtime.memory_bytes()
        except TimeoutError as error:
            raise LoadFailed("timeout", f"not ready after {self._load_seconds} s") from error

    def _load_ended(self, ref: VersionRef, task: asyncio.Task[Loaded]) -> None:
        self._reserved.pop(ref, None)
        del self._loading[ref]
        if not task.cancelled():
            task.exception()  # retrieved, should every caller have been cancelled

    async def _reserve(self, ref: VersionRef, declared_bytes: int) -> None:
        async with self._room:
            if not await self._free(declared_bytes):
                raise self._no_room(declared_bytes, "declared")
            self._reserved[ref] = declared_bytes

    async def _admit(self, ref: VersionRef, memory_bytes: int) -> None:
        """From here on the measured size counts, not the reserved one."""
        self._reserved[ref] = 0
        if not await self._free(memory_bytes):
            raise self._no_room(memory_bytes, "measured")

    def _no_room(self, needed_bytes: int, how: str) -> LoadFailed:
        return LoadFailed(
            "memory",
            f"{needed_bytes} bytes {how}, of {self._budget_bytes};"
            f" {self._taken_bytes()} are taken by versions that are pinned, in use or loading",
        )

    def _enter(self, entry: _Entry) -> None:
        self._entries[entry.ref] = entry
        entry.watch = asyncio.create_task(self._watch(entry), name=f"watch {entry.ref}")

    async def _watch(self, entry: _Entry) -> None:
        detail = await entry.runtime.failed()
        if entry.leaving is None:
            _log.warning("version_crashed", version=str(entry.ref), detail=detail)
            await self._leave(entry, "crashed")

    async def _free(self, needed_bytes: int) -> bool:
        """Make room, oldest first; False if nothing that is left may go. Hold `_room`."""
        if needed_bytes > self._budget_bytes:
            return False
        while self._taken_bytes() + needed_bytes > self._budget_bytes:
            idle = self._least_recently_used()
            leaving = [entry.leaving for entry in self._entries.values() if entry.leaving]
            if idle is not None:
                await self._leave(idle, "evicted")
            elif leaving:
                await asyncio.wait(leaving, return_when=asyncio.FIRST_COMPLETED)
            else:
                return False
        return True

    def _taken_bytes(self) -> int:
        return self.used_bytes + sum(self._reserved.values())

    def _least_recently_used(self) -> _Entry | None:
        pinned = frozenset(self._pinned())
        for entry in self._entries.values():
            if entry.leaving is None and entry.leases == 0 and entry.ref not in pinned:
                return entry
        return None

    async def _leave(self, entry: _Entry, reason: UnloadReason) -> None:
        if entry.leaving is None:
            entry.leaving = asyncio.create_task(self._depart(entry, reason))
        await asyncio.shield(entry.leaving)

    async def _depart(self, entry: _Entry, reason: UnloadReason) -> None:
        try:
            await self.on_unloaded(entry.ref, reason)
        except Exception:
            _log.exception("unload_not_told", version=str(entry.ref), reason=reason)
        try:
            await asyncio.wait_for(entry.idle.wait(), self._drain_seconds)
        except TimeoutError:
            _log.warning("drain_cut_short", version=str(entry.ref), leases=entry.leases)
        await entry.runtime.close()
        if entry.watch is not None:
            entry.watch.cancel()
        del self._entries[entry.ref]

    async def _left(self, ref: VersionRef) -> None:
        """Wait until no departure of the version is under way."""
        while (entry := self._entries.get(ref)) is not None and entry.leaving is not None:
            await asyncio.shield(entry.leaving)

    def _touch(self, entry: _Entry) -> None:
        self._entries[entry.ref] = self._entries.pop(entry.ref)


async def _nobody_listens(_ref: VersionRef, _reason: UnloadReason) -> None:
    pass

"""The projector: follows the log and keeps the read models at its head.

Guarantees: every event is applied to every projection once, in order, whoever else runs a projector
and wherever one of them dies. The checkpoint moves in the transaction that writes the rows; a
projector that lost the race reads the checkpoint again and goes on. Running several is safe, one is
enough.

All live projections are fed from one subscription and written in one transaction per batch. A build
that is behind (a new version, a rebuild) catches up by itself beside them and is switched to when
it has. Postgres or the log being away is waited out for ever. An event that cannot be applied is
the failure policy's: by default the projector stops and says which and why.

Nothing is asked of anybody while the log is quiet, except that the cache's entries are vouched for.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias

import msgspec
import structlog

from events import EventLog, LogUnavailable, MalformedEvent, Position, Recorded
from projections.applier import Applier, moved
from projections.apply import Applied
from projections.builds import Build, State, builds, install, skipped, switch
from projections.cache import Cache
from projections.errors import CheckpointMoved, DatabaseError
from projections.failures import FailurePolicy, ProjectionStopped, stop_always
from projections.pool import Pool
from projections.progress import Progress
from projections.projection import Projection
from projections.tables import PROJECTIONS
from projections.written import write_through

BATCH_EVENTS_MAX: Final = 2_000
BACKOFF_SECONDS_MIN: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 2.0

ProjectorState: TypeAlias = Literal["starting", "following", "waiting", "stopped"]
_log = structlog.get_logger(__name__)


class ProjectorStatus(msgspec.Struct, frozen=True, kw_only=True):
    """What `/readyz` shows."""

    state: ProjectorState
    """`waiting`: Postgres or the log is away, see `error`; it goes on by itself."""
    position: Position
    """The least position of the live projections."""
    lag: int
    """Positions between that and the head of the log; -1 while the log cannot be asked."""
    skipped: int
    """Events that live projections were told to pass over, ever."""
    building: tuple[str, ...]
    """Projections of which a new build is catching up."""
    error: str | None


class Projector:
    """Runs all projections of this version of the software."""

    def __init__(
        self,
        *,
        log: EventLog,
        pool: Pool,
        progress: Progress,
        cache: Cache | None = None,
        policy: FailurePolicy = stop_always,
        projections: Sequence[Projection] = PROJECTIONS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._log = log
        self._pool = pool
        self._progress = progress
        self._cache = cache
        self._applier = Applier(pool, policy=policy, now=now)
        self._projections = projections
        self._state: ProjectorState = "starting"
        self._error: str | None = None
        self._live: Sequence[Build] = ()
        self._building: tuple[str, ...] = ()
        self._skipped = 0
        self._installed = False

    async def run(self) -> None:
        """Until cancelled. Raises ProjectionStopped."""
        backoff_s = BACKOFF_SECONDS_MIN
        async with _beside(self._keep_cache()):
            while True:
                before = self._position
                try:
                    await self._follow()
                except CheckpointMoved as error:
                    _log.info("another projector was first", checkpoint=str(error))
                except (DatabaseError, LogUnavailable) as error:
                    self._installed = False  # what comes back may be an older state, or empty
                    if self._position > before:
                        backoff_s = BACKOFF_SECONDS_MIN
                    self._say("waiting", error)
                    await asyncio.sleep(backoff_s)
                    backoff_s = min(backoff_s * 2, BACKOFF_SECONDS_MAX)
                except ProjectionStopped as error:
                    self._say("stopped", error)
                    raise

    async def status(self) -> ProjectorStatus:
        """Asks the log for its head."""
        try:
            lag = max(0, await self._log.position() - self._position)
        except LogUnavailable:
            lag = -1
        return ProjectorStatus(
            state=self._state,
            position=self._position,
            lag=lag,
            skipped=self._skipped,
            building=self._building,
            error=self._error,
        )

    @property
    def _position(self) -> Position:
        return min((build.position for build in self._live), default=0)

    async def _follow(self) -> None:
        """One life: from the checkpoints as they are until something breaks or is switched."""
        if not self._installed:
            await install(self._pool, self._projections)
        found = await builds(self._pool, self._projections)
        self._live = [build for build in found if build.state is State.LIVE]
        behind = [build for build in found if build.state is State.BUILDING]
        self._building = tuple(build.projection.name for build in behind)
        self._skipped = await skipped(self._pool, self._live)
        self._tell()
        if not self._installed:
            await self._begin_cache(self._live)
        self._installed = True
        self._state, self._error = "following", None
        await _first_of([self._feed(), *(self._catch_up(build) for build in behind)])

    async def _feed(self) -> None:
        """The live builds, for ever."""
        if not self._live:
            await asyncio.Event().wait()  # all are being built; cancelled when one is live
        async with aclosing(self._applied(self._live)) as batches:
            async for applied in batches:
                self._live = moved(self._live, applied)
                self._skipped += sum(done.skipped for done in applied)
                self._tell()
                if self._cache is not None:
                    await write_through(self._cache, applied)

    async def _catch_up(self, build: Build) -> None:
        """One build, until it is the live one."""
        if await self._switch(build):
            return
        async with aclosing(self._applied([build])) as batches:
            async for applied in batches:
                (build,) = moved([build], applied)
                if await self._switch(build):
                    return

    async def _applied(self, targets: Sequence[Build]) -> AsyncGenerator[list[Applied], None]:
        """What was committed, batch by batch, from where the builds are, for ever."""
        while True:
            after = min(build.position for build in targets)
            try:
                async with aclosing(self._batches(after)) as batches:
                    async for batch in batches:
                        applied = await self._applier.apply(targets, batch)
                        targets = moved(targets, applied)
                        yield applied
            except ProjectionStopped as stopped:
                if stopped.applied:
                    yield list(stopped.applied)
                raise
            except MalformedEvent as error:
                applied = await self._applier.pass_over(targets, error)
                targets = moved(targets, applied)
                yield applied

    async def _batches(self, after: Position) -> AsyncGenerator[Sequence[Recorded], None]:
        """Batches of the log; the next is read while one is being written."""
        source = self._log.subscribe_batches(after=after, batch_max=BATCH_EVENTS_MAX)
        upcoming = asyncio.create_task(_next(source))
        try:
            while True:
                batch = await upcoming
                upcoming = asyncio.create_task(_next(source))
                yield batch
        finally:
            upcoming.cancel()
            await asyncio.gather(upcoming, return_exceptions=True)
            await source.aclose()

    async def _switch(self, build: Build) -> bool:
        switched = await switch(self._pool, build)
        if switched:
            await self._begin_cache([build])
        return switched

    def _tell(self) -> None:
        self._progress.applied({b.projection.name: b.position for b in self._live})

    async def _begin_cache(self, live: Sequence[Build]) -> None:
        for build in live:
            if self._cache is not None and build.projection.cached is not None:
                await self._cache.begin(build.projection, build.position)

    async def _keep_cache(self) -> None:
        if self._cache is not None:
            await self._cache.keep([p for p in self._projections if p.cached is not None])

    def _say(self, state: ProjectorState, error: Exception) -> None:
        self._state, self._error = state, f"{type(error).__name__}: {error}"
        _log.warning("projector", state=state, error=self._error)


async def _next(source: AsyncIterator[Sequence[Recorded]]) -> Sequence[Recorded]:
    return await anext(source)


async def _first_of(lives: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Until the first of them ends; the others are cancelled. Raises what it raised."""
    tasks = [asyncio.create_task(life) for life in lives]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


@contextlib.asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run something in the background for as long as the block lasts."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

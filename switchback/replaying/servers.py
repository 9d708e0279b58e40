"""Replays through real servers: JetStream, the projector, Postgres and Redis.

Servers start with the first replay and are shared by the following ones, but no replay sees what an
earlier one left: each has a NATS server, a Redis server and a database of its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Final

from events import EventLog, Position, Recorded, connect
from events.event import SYSTEM_TENANT
from events.files import IMPORT_BATCH_EVENTS
from handlers.projector import Projector
from handlers.routing import Routing
from projections import Pool, PoolSettings
from projections.cache import Cache, Miss
from projections.progress import POLL_SECONDS, Progress
from projections.projection import Projection
from projections.tables import PROJECTIONS
from switchback.embedded import NatsServer, PostgresServer, RedisServer
from switchback.ending import end
from switchback.replaying.contents import read_tables
from switchback.replaying.memory import Replayed

REPLAY_SECONDS_MAX: Final = 120.0


class Stage:
    """Empty servers for one replay, and what a replay does on them step by step."""

    def __init__(self, *, log: EventLog, pool: Pool, redis_url: str) -> None:
        self.log = log
        self.pool = pool
        self.redis_url = redis_url

    async def write(self, events: Sequence[Recorded]) -> Position:
        """The events onto the log, verbatim; the last position."""
        position = await self.log.position()
        for start in range(0, len(events), IMPORT_BATCH_EVENTS):
            position = await self.log.restore(events[start : start + IMPORT_BATCH_EVENTS])
        return position

    @asynccontextmanager
    async def projector(self, *, log: EventLog | None = None) -> AsyncIterator[Projecting]:
        """A projector at work for as long as the block lasts; ended there without a farewell.

        `log` replaces the stage's own, for one that is slow, short or broken.
        """
        progress = Progress(self.pool)
        async with Cache(self.redis_url) as cache:
            projector = Projector(
                log=log or self.log, pool=self.pool, progress=progress, cache=cache
            )
            running = asyncio.create_task(projector.run())
            try:
                yield Projecting(progress, running, cache)
            finally:
                await end(running)

    async def routing(self) -> Routing:
        """The log folded as a gateway does."""
        routing = Routing()
        until = await self.log.position()
        async with aclosing(self.log.subscribe_batches()) as batches:
            while routing.position < until:
                for recorded in await anext(batches):
                    routing.apply(recorded)
        return routing


class Projecting:
    """A projector at work."""

    def __init__(self, progress: Progress, running: asyncio.Task[None], cache: Cache) -> None:
        self._progress = progress
        self._running = running
        self._cache = cache

    async def reached(self, position: Position) -> None:
        """Return when every table is at the position. Raises ProjectionStopped, TimeoutError."""
        names = [projection.name for projection in PROJECTIONS]
        deadline = asyncio.get_running_loop().time() + REPLAY_SECONDS_MAX
        waiting = asyncio.create_task(self._progress.wait(names, position, deadline=deadline))
        await asyncio.wait({waiting, self._running}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            waiting.cancel()
            await self._running
        if not await waiting:
            raise TimeoutError(f"position {position} not reached in {REPLAY_SECONDS_MAX} s")

    async def cached(self, position: Position) -> None:
        """Return when the cache is vouched for up to the position. Raises TimeoutError."""
        async with asyncio.timeout(REPLAY_SECONDS_MAX):
            for projection in PROJECTIONS:
                if projection.cached is not None:
                    await self._cached(projection, position)

    async def _cached(self, projection: Projection, position: Position) -> None:
        while not await self._covers(projection, position):  # noqa: ASYNC110 - Redis tells nobody
            await asyncio.sleep(POLL_SECONDS)

    async def _covers(self, projection: Projection, position: Position) -> bool:
        # An id that no row has: what comes back is the state of the entries.
        found = await self._cache.get(projection, SYSTEM_TENANT, "")
        state = found.state if isinstance(found, Miss) else None
        return state is not None and int(state.rpartition(":")[2]) >= position


class ReplayServers:
    """Stages for replays, below a directory. `kill` it in the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = itertools.count(1)
        self._postgres: PostgresServer | None = None

    async def replay(self, events: Sequence[Recorded]) -> Replayed:
        """Write, project, read. Raises ProjectionStopped, TimeoutError."""
        async with self.stage() as stage:
            position = await stage.write(events)
            async with stage.projector() as projecting:
                await projecting.reached(position)
            tables = await read_tables(stage.pool)
            return Replayed(await stage.routing(), tables, len(events))

    @asynccontextmanager
    async def stage(self) -> AsyncIterator[Stage]:
        """Empty servers."""
        directory = self._directory / str(next(self._numbers))
        async with AsyncExitStack() as stack:
            nats = await stack.enter_async_context(NatsServer(directory / "nats"))
            redis = await stack.enter_async_context(RedisServer(directory / "redis"))
            log = await stack.enter_async_context(connect(nats.url))
            settings = PoolSettings(dsn=await self._database())
            pool = await stack.enter_async_context(Pool(settings))
            yield Stage(log=log, pool=pool, redis_url=redis.url)

    def kill(self) -> None:
        """Stop what is left running."""
        if self._postgres is not None:
            self._postgres.kill()
            self._postgres = None

    async def _database(self) -> str:
        if self._postgres is None:
            server = PostgresServer(self._directory / "postgres")
            await server.start()
            self._postgres = server
        name = f"replay_{next(self._numbers)}"
        async with Pool(PoolSettings(dsn=self._postgres.url)) as pool:
            await pool.execute(f"CREATE DATABASE {name}")
        return self._postgres.url.rpartition("/")[0] + f"/{name}"

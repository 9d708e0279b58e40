"""Lines `replay-memory` and `replay-postgres`: the whole log again, into a fold and into tables."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import islice
from typing import Final

from events import connect
from events.files import IMPORT_BATCH_EVENTS
from events.jetstream.ceilings import ordered_subscription
from events.log import ALL_EVENTS
from handlers.following import Follower
from handlers.projector import Projector
from handlers.routing import Routing
from projections import Pool, PoolSettings
from projections.cache import Cache
from projections.ceilings import copy_of_tables
from projections.progress import Progress
from projections.tables import PROJECTIONS
from switchback.bench.figures import Goal, Row, row
from switchback.bench.histories import history
from switchback.bench.sizes import LINE_SECONDS_MAX, Sizes
from switchback.bench.stage import BenchFailed, Stage
from switchback.servers import Addresses

MEMORY: Final = "replay-memory"
POSTGRES: Final = "replay-postgres"
MEMORY_RATE: Final = Goal("at least", 30_000)
POSTGRES_RATE: Final = Goal("at least", 15_000)


async def measure_memory(stage: Stage, sizes: Sizes) -> Sequence[Row]:
    events, url = sizes.replayed_events, stage.addresses.nats
    await stage.call(write_history, url, events)
    ours: list[float] = []
    ceilings: list[float] = []
    for _ in range(sizes.rounds):
        ceilings.append(await stage.call(ordered_subscription, url, "EVENTS", ALL_EVENTS, events))
        ours.append(await stage.call(fold_log, url, events))
    return (row(MEMORY, "events into memory", "/s", ours, ceilings=ceilings, goal=MEMORY_RATE),)


async def measure_postgres(stage: Stage, sizes: Sizes) -> Sequence[Row]:
    events = sizes.replayed_events
    await stage.call(write_history, stage.addresses.nats, events)
    ours: list[float] = []
    ceilings: list[float] = []
    for number in range(sizes.rounds):
        dsn = await stage.call(make_database, stage.addresses.postgres, f"bench_{number}")
        ours.append(await stage.call(project_log, stage.addresses, dsn, events))
        ceilings.append(events / await stage.call(copy_of_tables, dsn))
    return (row(POSTGRES, "events into tables", "/s", ours, ceilings=ceilings, goal=POSTGRES_RATE),)


async def write_history(url: str, events: int) -> None:
    """Put the history on an empty log."""
    recorded = history(events)
    async with connect(url) as log:
        while batch := list(islice(recorded, IMPORT_BATCH_EVENTS)):
            await log.restore(batch)


async def fold_log(url: str, events: int) -> float:
    """Events a second into a gateway's fold, connection included."""
    routing = Routing()
    async with connect(url) as log:
        began = time.perf_counter()
        follower = Follower(routing, log)
        following = asyncio.create_task(follower.run())
        async with asyncio.timeout(LINE_SECONDS_MAX):
            await routing.reach(events)
        took_s = time.perf_counter() - began
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    if follower.passed_over:
        raise BenchFailed(f"{follower.passed_over} events could not be folded")
    return events / took_s


async def make_database(dsn: str, name: str) -> str:
    """The address of a new, empty database."""
    async with Pool(PoolSettings(dsn=dsn)) as pool:
        await pool.execute(f"CREATE DATABASE {name}")
    return f"{dsn.rpartition('/')[0]}/{name}"


async def project_log(addresses: Addresses, dsn: str, events: int) -> float:
    """Events a second into every table of an empty database, and into the cache."""
    async with (
        connect(addresses.nats) as log,
        Pool(PoolSettings(dsn=dsn)) as pool,
        Cache(addresses.redis) as cache,
    ):
        progress = Progress(pool)
        projector = Projector(log=log, pool=pool, progress=progress, cache=cache)
        began = time.perf_counter()
        projecting = asyncio.create_task(projector.run())
        deadline = asyncio.get_running_loop().time() + LINE_SECONDS_MAX
        names = [projection.name for projection in PROJECTIONS]
        reached = await progress.wait(names, events, deadline=deadline)
        took_s = time.perf_counter() - began
        status = await projector.status()
        projecting.cancel()
        await asyncio.gather(projecting, return_exceptions=True)
    if not reached:
        raise BenchFailed(f"the projector came to {status.position}: {status.error}")
    return events / took_s

"""C01 to C08: the cache beside the tables, on a real Redis and a real Postgres."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from events import EntityId, Position
from events.catalogue.endpoints import EndpointCreated, Policy, PolicySet
from events.catalogue.models import AliasMoved, ModelRegistered, VersionRegistered
from events.memory import MemoryLog
from handlers.projector import Projector
from projections import Pool, PoolSettings, Queries
from projections.builds import install
from projections.cache import Cache, Entry, Hit, Miss
from projections.progress import Progress
from projections.reader import Reader, become_reader, reader_settings
from projections.tables import PROJECTIONS
from projections.tables.models import PROJECTION as MODELS
from switchback.embedded import RedisServer

MODELS_COUNT = 40


class World(msgspec.Struct):
    """A log, its tables, and two processes that read them: the projector's and a gateway's."""

    log: MemoryLog
    pool: Pool
    reader_pool: Pool
    progress: Progress
    cache: Cache
    """The projector's."""
    gateway_cache: Cache
    gateway: Queries
    tables: Queries
    """Without a cache."""

    async def applied(self, position: Position) -> None:
        deadline = asyncio.get_running_loop().time() + 30
        names = [projection.name for projection in PROJECTIONS]
        assert await self.progress.wait(names, position, deadline=deadline)


@pytest_asyncio.fixture
async def redis_own(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest_asyncio.fixture
async def world(postgres_dsn: str, redis_own: RedisServer) -> AsyncIterator[World]:
    settings = PoolSettings(dsn=postgres_dsn)
    async with (
        Pool(settings) as pool,
        Pool(reader_settings(settings), prepare=become_reader) as reader_pool,
        Cache(redis_own.url) as cache,
        Cache(redis_own.url) as gateway_cache,
    ):
        await install(pool, PROJECTIONS)
        progress, log = Progress(pool), MemoryLog()
        reader = Reader(reader_pool, progress=progress)
        projector = Projector(log=log, pool=pool, progress=progress, cache=cache)
        running = asyncio.create_task(projector.run())
        world = World(
            log=log,
            pool=pool,
            reader_pool=reader_pool,
            progress=progress,
            cache=cache,
            gateway_cache=gateway_cache,
            gateway=Queries(reader, cache=gateway_cache),
            tables=Queries(reader),
        )
        await world.applied(await populate(log))
        yield world
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def populate(log: MemoryLog) -> Position:
    for index in range(MODELS_COUNT):
        name = f"m{index}"
        await log.append(
            EntityId("acme", "model", name),
            [
                ModelRegistered(name=name, description="x" * index),
                VersionRegistered(version="1.0.0", runtime="echo"),
                AliasMoved(alias="live", to_version="1.0.0"),
            ],
            expected=0,
        )
        created = EndpointCreated(model=name, version="1.0.0", policy=all_to("1.0.0"))
        position = await log.append(EntityId("acme", "endpoint", name), [created], expected=0)
    return position


def all_to(version: str) -> Policy:
    return Policy(split={version: 100.0})


async def move_alias(world: World, model: str, version: str) -> Position:
    entity = EntityId("acme", "model", model)
    last = [recorded.position async for recorded in world.log.read(entity)][-1]
    return await world.log.append(
        entity, [AliasMoved(alias="live", to_version=version)], expected=last
    )


async def live_version(world: World, model: str, *, min_position: Position = 0) -> str:
    found = await world.gateway.models.get("acme", model, min_position=min_position)
    assert found is not None
    return found.aliases["live"]


async def test_c01_connect_info_and_eviction_policy(redis_own: RedisServer) -> None:
    async with Redis.from_url(redis_own.url) as redis:
        assert await redis.ping()
        info = await redis.info()
        assert int(info["redis_version"].partition(".")[0]) >= 6
        assert info["maxmemory_policy"] == "allkeys-lru"
        assert info["maxmemory"] > 0


async def test_c02_set_get_delete_many_keys_and_expiry(redis_url: str) -> None:
    async with Cache(redis_url) as cache, Redis.from_url(redis_url) as redis:
        await cache.begin(MODELS, 0)
        entries = [
            Entry(tenant="acme", id=f"m{n}", position=1, value=b"v%d" % n) for n in range(500)
        ]
        await cache.write(MODELS, entries, expected=0, position=1)
        for n in range(500):
            assert await cache.get(MODELS, "acme", f"m{n}") == Hit(b"v%d" % n)
        deletion = Entry(tenant="acme", id="m7", position=2, value=None)
        await cache.write(MODELS, [deletion], expected=1, position=2)
        assert await cache.get(MODELS, "acme", "m7") == Hit(None)
        assert all([await redis.ttl(key) > 0 for key in await redis.keys("sb:*")])
        assert await redis.pexpire("sb:models:1:acme:m8", 0)
        assert isinstance(await cache.get(MODELS, "acme", "m8"), Miss)


async def test_c03_the_cache_equals_the_database(world: World) -> None:
    for _ in range(2):
        for index in range(MODELS_COUNT):
            name = f"m{index}"
            model = await world.gateway.models.get("acme", name)
            endpoint = await world.gateway.endpoints.get("acme", name)
            assert model == await world.tables.models.get("acme", name)
            assert endpoint == await world.tables.endpoints.get("acme", name)
    assert world.gateway_cache.stats.hits >= 2 * MODELS_COUNT


async def test_c04_an_update_replaces_what_was_cached(world: World) -> None:
    assert await live_version(world, "m1") == "1.0.0"
    for version in ("2.0.0", "3.0.0", "4.0.0"):
        position = await move_alias(world, "m1", version)
        assert await live_version(world, "m1", min_position=position) == version
    entity = EntityId("acme", "endpoint", "m1")
    last = [recorded.position async for recorded in world.log.read(entity)][-1]
    moved = await world.log.append(entity, [PolicySet(policy=all_to("2.0.0"))], expected=last)
    endpoint = await world.gateway.endpoints.get("acme", "m1", min_position=moved)
    assert endpoint is not None
    assert (endpoint.active, endpoint.previous) == ("2.0.0", "1.0.0")


async def test_c05_a_miss_loads_from_the_database_and_the_next_read_hits(world: World) -> None:
    await world.cache.begin(MODELS, await world.log.position())
    assert await live_version(world, "m2") == "1.0.0"
    missed = world.gateway_cache.stats
    assert (missed.misses, missed.fills) == (1, 1)
    assert await live_version(world, "m2") == "1.0.0"
    assert world.gateway_cache.stats.hits == missed.hits + 1


async def test_c06_cached_reads_do_not_ask_the_database(world: World) -> None:
    assert await live_version(world, "m3") == "1.0.0"
    await world.reader_pool.close()
    hits = world.gateway_cache.stats.hits
    for _ in range(1_000):
        assert await live_version(world, "m3") == "1.0.0"
    assert world.gateway_cache.stats.hits == hits + 1_000


async def test_c07_write_through_and_cache_aside_are_both_fenced(world: World) -> None:
    await world.cache.begin(MODELS, await world.log.position())
    late = await world.gateway_cache.get(MODELS, "acme", "m4")
    assert isinstance(late, Miss)
    old = await world.tables.models.get("acme", "m4")
    assert old is not None
    position = await move_alias(world, "m4", "2.0.0")
    assert await live_version(world, "m4", min_position=position) == "2.0.0"
    await world.gateway_cache.fill(
        MODELS, late, position=old.position, value=msgspec.json.encode(old)
    )
    assert await live_version(world, "m4") == "2.0.0"
    assert world.gateway_cache.stats.refused_fills >= 1


async def test_c08_redis_flushed_under_way_serves_nothing_old(
    world: World, redis_own: RedisServer
) -> None:
    async with Redis.from_url(redis_own.url) as redis:
        for step in range(2, 12):
            position = await move_alias(world, "m5", f"{step}.0.0")
            if step % 3 == 0:
                await redis.flushall()
            assert await live_version(world, "m5", min_position=position) == f"{step}.0.0"
            assert await live_version(world, "m5") == f"{step}.0.0"


async def test_c08_redis_away_and_back_serves_nothing_old(
    world: World, redis_own: RedisServer
) -> None:
    assert await live_version(world, "m6") == "1.0.0"
    redis_own.kill()
    position = await move_alias(world, "m6", "2.0.0")
    assert await live_version(world, "m6", min_position=position) == "2.0.0"
    assert world.gateway_cache.stats.errors > 0
    await redis_own.start()
    assert await live_version(world, "m6") == "2.0.0"
    position = await move_alias(world, "m6", "3.0.0")
    assert await live_version(world, "m6", min_position=position) == "3.0.0"


@pytest.mark.slow
async def test_c08_the_cache_fills_again_by_itself_after_a_flush(
    world: World, redis_own: RedisServer
) -> None:
    async with Redis.from_url(redis_own.url) as redis:
        await redis.flushall()
        while not await redis.exists("sb:models:1:state"):
            assert await live_version(world, "m7") == "1.0.0"
    await live_version(world, "m7")
    hits = world.gateway_cache.stats.hits
    assert await live_version(world, "m7") == "1.0.0"
    assert world.gateway_cache.stats.hits == hits + 1

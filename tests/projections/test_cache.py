"""The cache never serves an older value after a newer one, whoever races, fails or flushes."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from projections.breaker import FAILURES_MAX
from projections.cache import Cache, Entry, Hit, Miss
from projections.tables.endpoints import PROJECTION as ENDPOINTS
from projections.tables.models import PROJECTION as MODELS
from switchback.embedded import RedisServer


def entry(position: int, *, id: str = "fraud", value: bytes | None = None) -> Entry:
    shown = str(position).encode() if value is None else value
    return Entry(tenant="acme", id=id, position=position, value=shown)


async def written(cache: Cache, *positions: int) -> None:
    """A generation in which the row was written at each of these positions."""
    await cache.begin(MODELS, positions[0] - 1)
    before = positions[0] - 1
    for position in positions:
        await cache.write(MODELS, [entry(position)], expected=before, position=position)
        before = position


async def miss(cache: Cache) -> Miss:
    found = await cache.get(MODELS, "acme", "fraud")
    assert isinstance(found, Miss)
    return found


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine is no failure of Redis."""
    monkeypatch.setattr("projections.cache._READ_SECONDS", 30.0)
    monkeypatch.setattr("projections.cache._WRITE_SECONDS", 30.0)


@contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    """Inside, Redis does not answer at all, and nobody waits for it long."""
    with pytest.MonkeyPatch.context() as impatient:
        impatient.setattr("projections.cache._READ_SECONDS", 0.05)
        impatient.setattr("projections.cache._WRITE_SECONDS", 0.05)
        server.freeze()
        try:
            yield
        finally:
            server.thaw()


@pytest_asyncio.fixture
async def other(redis_url: str) -> AsyncIterator[Cache]:
    """The cache as another process has it: it projects nothing."""
    async with Cache(redis_url) as cache:
        yield cache


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


async def test_what_the_projector_wrote_is_read(cache: Cache, other: Cache) -> None:
    await written(cache, 5, 9)
    assert await other.get(MODELS, "acme", "fraud") == Hit(b"9")
    assert isinstance(await other.get(MODELS, "beta", "fraud"), Miss)
    assert isinstance(await other.get(ENDPOINTS, "acme", "fraud"), Miss)


async def test_a_miss_is_filled_with_what_the_database_said(cache: Cache, other: Cache) -> None:
    await cache.begin(MODELS, 7)
    await other.fill(MODELS, await miss(other), position=5, value=b"five")
    assert await other.get(MODELS, "acme", "fraud") == Hit(b"five")
    assert other.stats.fills == 1


async def test_values_may_hold_any_bytes(cache: Cache) -> None:
    await cache.begin(MODELS, 0)
    value = b"a:b:\x00\xff:" + bytes(range(256))
    await cache.write(MODELS, [entry(1, value=value)], expected=0, position=1)
    assert await cache.get(MODELS, "acme", "fraud") == Hit(value)


async def test_a_fill_that_read_before_a_write_is_refused(cache: Cache, other: Cache) -> None:
    await cache.begin(MODELS, 4)
    missed = await miss(other)  # and now it reads position 4 from Postgres
    await cache.write(MODELS, [entry(5)], expected=4, position=5)
    await other.fill(MODELS, missed, position=4, value=b"4")
    assert await other.get(MODELS, "acme", "fraud") == Hit(b"5")
    assert other.stats.refused_fills == 1


async def test_a_fill_that_read_before_a_write_is_refused_also_when_the_entry_was_evicted(
    cache: Cache, other: Cache, redis: Redis
) -> None:
    await cache.begin(MODELS, 4)
    missed = await miss(other)
    await cache.write(MODELS, [entry(5)], expected=4, position=5)
    assert await redis.delete("sb:models:1:acme:fraud") == 1
    await other.fill(MODELS, missed, position=4, value=b"4")
    assert isinstance(await other.get(MODELS, "acme", "fraud"), Miss)


async def test_of_two_fills_the_newer_stays(cache: Cache, other: Cache) -> None:
    await cache.begin(MODELS, 9)
    first, second = await miss(other), await miss(other)
    await other.fill(MODELS, second, position=9, value=b"9")
    await other.fill(MODELS, first, position=8, value=b"8")
    assert await other.get(MODELS, "acme", "fraud") == Hit(b"9")


async def test_a_fill_from_before_a_flush_is_refused_after_it(
    cache: Cache, other: Cache, redis: Redis
) -> None:
    await cache.begin(MODELS, 4)
    missed = await miss(other)
    await redis.flushall()
    await cache.begin(MODELS, 4)
    await other.fill(MODELS, missed, position=4, value=b"4")
    assert isinstance(await other.get(MODELS, "acme", "fraud"), Miss)


async def test_a_write_under_way_during_a_flush_begins_an_empty_generation(
    cache: Cache, other: Cache, redis: Redis
) -> None:
    """Another projector may have written, and readers been served, something newer before it."""
    await written(cache, 5)
    await redis.flushall()
    await cache.write(MODELS, [entry(6)], expected=5, position=6)
    found = await other.get(MODELS, "acme", "fraud")
    assert isinstance(found, Miss)
    assert found.state is not None, "readers may fill again"


async def test_an_old_copy_of_redis_that_comes_back_is_not_believed(
    cache: Cache, other: Cache, redis: Redis
) -> None:
    await written(cache, 5)
    old = {key: await redis.get(key) for key in await redis.keys("sb:*")}
    await cache.write(MODELS, [entry(6)], expected=5, position=6)
    await redis.flushall()
    await redis.mset(old)
    await cache.write(MODELS, [], expected=6, position=7)
    assert isinstance(await other.get(MODELS, "acme", "fraud"), Miss)


async def test_two_projectors_out_of_step_leave_nothing_old(
    cache: Cache, other: Cache, redis_url: str
) -> None:
    """The second committed later and writes first."""
    await written(cache, 5)
    async with Cache(redis_url) as second:
        await second.write(MODELS, [entry(7)], expected=6, position=7)
        await cache.write(MODELS, [entry(6)], expected=5, position=6)
    found = await other.get(MODELS, "acme", "fraud")
    assert isinstance(found, Miss)
    assert found.state is not None
    assert found.state.endswith(":7"), "nor is less claimed to be applied than was"


async def test_a_deletion_is_remembered_with_its_position(cache: Cache, other: Cache) -> None:
    await cache.begin(MODELS, 4)
    missed = await miss(other)
    gone = Entry(tenant="acme", id="fraud", position=5, value=None)
    await cache.write(MODELS, [gone], expected=4, position=5)
    await other.fill(MODELS, missed, position=4, value=b"4")
    assert await other.get(MODELS, "acme", "fraud") == Hit(None)


async def test_a_minimum_position_is_met_or_missed(cache: Cache, other: Cache) -> None:
    await written(cache, 5)
    await cache.write(MODELS, [], expected=5, position=8)
    assert await other.get(MODELS, "acme", "fraud", min_position=8) == Hit(b"5")
    assert isinstance(await other.get(MODELS, "acme", "fraud", min_position=9), Miss)


async def test_readers_beside_the_projector_miss_while_its_write_has_not_arrived(
    cache: Cache, redis: Redis
) -> None:
    await written(cache, 5)
    old = await redis.get("sb:models:1:state")
    await cache.write(MODELS, [], expected=5, position=6)
    await redis.set("sb:models:1:state", old)
    assert isinstance(await cache.get(MODELS, "acme", "fraud"), Miss)


async def test_without_a_projector_nothing_is_served_or_filled(other: Cache, redis: Redis) -> None:
    missed = await miss(other)
    await other.fill(MODELS, missed, position=4, value=b"4")
    assert missed.state is None
    assert await redis.keys("sb:*") == []


async def test_everything_in_redis_runs_out(cache: Cache, redis: Redis) -> None:
    await written(cache, 5)
    for key in await redis.keys("sb:*"):
        assert await redis.ttl(key) > 0


async def test_keeping_repairs_what_a_flush_took(cache: Cache, other: Cache, redis: Redis) -> None:
    await written(cache, 5)
    await redis.flushall()
    keeping = asyncio.create_task(cache.keep([MODELS]))
    while await redis.get("sb:models:1:state") is None:
        assert not keeping.done()
    keeping.cancel()
    await other.fill(MODELS, await miss(other), position=5, value=b"5")
    assert await other.get(MODELS, "acme", "fraud") == Hit(b"5")


async def race(cache: Cache, other: Cache, redis: Redis, *, seed: int) -> None:
    """A writer, readers who fill late, and flushes, in an order that the seed decides."""
    chance = random.Random(seed)
    database = 0
    served = 0
    done = False

    async def pause() -> None:
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)

    async def write() -> None:
        nonlocal database, done
        await cache.begin(MODELS, 0)
        for position in range(1, 30):
            await pause()
            database = position
            await pause()
            await cache.write(MODELS, [entry(position)], expected=position - 1, position=position)
            if chance.random() < 0.1:
                await redis.flushall()
        done = True

    async def read() -> None:
        nonlocal served
        while not done:
            floor = served
            found = await other.get(MODELS, "acme", "fraud")
            if isinstance(found, Hit):
                assert found.value is not None
                assert int(found.value) >= floor, f"{found.value!r} after {floor}"
                served = max(served, int(found.value))
            else:
                seen = database
                await pause()
                await other.fill(MODELS, found, position=seen, value=str(seen).encode())

    await asyncio.gather(write(), *(read() for _ in range(4)))
    found = await other.get(MODELS, "acme", "fraud")
    assert found == Hit(str(database).encode()) or isinstance(found, Miss)


@pytest.mark.parametrize("seed", range(20))
async def test_racing_fills_and_flushes_never_bring_back_an_older_value(
    cache: Cache, other: Cache, redis: Redis, seed: int
) -> None:
    await race(cache, other, redis, seed=seed)


async def race_of_the_naive(redis: Redis, *, seed: int) -> bool:
    """The same race with the usual delete-on-write; whether it ends with an old value."""
    chance = random.Random(seed)
    database = 0

    async def pause() -> None:
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)

    async def write() -> None:
        nonlocal database
        for position in range(1, 10):
            await pause()
            database = position
            await redis.delete("naive")

    async def read() -> None:
        while database < 9:
            if await redis.get("naive") is None:
                seen = database
                await pause()
                await redis.set("naive", seen)

    await redis.delete("naive")
    await asyncio.gather(write(), *(read() for _ in range(4)))
    return await redis.get("naive") not in (None, b"9")


async def test_control_delete_on_write_does_bring_back_an_older_value(redis: Redis) -> None:
    """What the fences are for: the usual way keeps an old value for as long as it lives."""
    assert any([await race_of_the_naive(redis, seed=seed) for seed in range(20)])


async def test_a_cancellation_that_the_client_turns_into_an_error_is_not_lost(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def swallow(*arguments: object) -> None:
        asked.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as error:
            raise RedisConnectionError from error

    monkeypatch.setattr(cache, "_redis", SimpleNamespace(mget=swallow))
    reading = asyncio.create_task(cache.get(MODELS, "acme", "fraud"))
    await asked.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    monkeypatch.undo()


@pytest_asyncio.fixture
async def own_redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with RedisServer(tmp_path / "redis") as server:
        yield server


async def test_a_redis_that_died_and_came_back_serves_nothing_from_before(
    own_redis: RedisServer,
) -> None:
    async with Cache(own_redis.url) as cache, Cache(own_redis.url) as other:
        await written(cache, 5)
        own_redis.kill()
        assert isinstance(await other.get(MODELS, "acme", "fraud"), Miss)
        await cache.write(MODELS, [entry(6)], expected=5, position=6)
        assert cache.stats.errors > 0
        await own_redis.start()
        assert isinstance(await other.get(MODELS, "acme", "fraud"), Miss)
        await cache.begin(MODELS, 6)
        await cache.write(MODELS, [entry(7)], expected=6, position=7)
        assert await other.get(MODELS, "acme", "fraud") == Hit(b"7")


async def test_after_a_freeze_the_lost_write_ends_the_generation(own_redis: RedisServer) -> None:
    async with Cache(own_redis.url) as cache, Cache(own_redis.url) as other:
        await written(cache, 5)
        with frozen(own_redis):
            await cache.write(MODELS, [entry(6)], expected=5, position=6)
        await cache.write(MODELS, [entry(7)], expected=6, position=7)
        assert isinstance(await other.get(MODELS, "acme", "fraud"), Miss)
        assert isinstance(await cache.get(MODELS, "acme", "fraud"), Miss)


async def test_a_dead_redis_is_left_alone_after_a_few_failures(own_redis: RedisServer) -> None:
    async with Cache(own_redis.url) as cache:
        await written(cache, 5)
        with frozen(own_redis):
            for _ in range(FAILURES_MAX):
                await cache.get(MODELS, "acme", "fraud")
            for _ in range(1_000):
                assert isinstance(await cache.get(MODELS, "acme", "fraud"), Miss)
        assert cache.stats.spared > 900
        assert cache.stats.misses == 1_000 + FAILURES_MAX

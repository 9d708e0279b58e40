"""Pools, queries and a projector on an empty database."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from projections import Pool, PoolSettings, Queries
from projections.cache import Cache
from projections.progress import Progress
from projections.reader import Reader, become_reader, reader_settings


@pytest.fixture
def settings(postgres_dsn: str) -> PoolSettings:
    return PoolSettings(dsn=postgres_dsn)


@pytest_asyncio.fixture
async def pool(settings: PoolSettings) -> AsyncIterator[Pool]:
    async with Pool(settings) as pool:
        yield pool


@pytest_asyncio.fixture
async def reader_pool(settings: PoolSettings) -> AsyncIterator[Pool]:
    async with Pool(reader_settings(settings), prepare=become_reader) as pool:
        yield pool


@pytest.fixture
def progress(pool: Pool) -> Progress:
    return Progress(pool)


@pytest.fixture
def reader(reader_pool: Pool, progress: Progress) -> Reader:
    return Reader(reader_pool, progress=progress)


@pytest.fixture
def queries(reader: Reader) -> Queries:
    return Queries(reader)


@pytest_asyncio.fixture
async def cache(redis_url: str) -> AsyncIterator[Cache]:
    async with Cache(redis_url) as cache:
        yield cache

"""Real servers for the tests: started on free ports when first needed, once per session.

`postgres_dsn` is a new empty database for each test; `redis_url` a flushed server; `nats_url` a
server without streams; `system` is a whole Switchback on the three of them. Tests that kill
servers start their own, see tests/faults.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import nats
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from switchback.bootstrap import write_credentials
from switchback.client import Client
from switchback.embedded import NatsServer, PostgresServer, RedisServer
from switchback.process import open_process
from switchback.servers import addresses
from switchback.settings import Settings
from tests.system import System

_databases = itertools.count(1)


@pytest.fixture(scope="session")
def servers_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest_asyncio.fixture(scope="session")
async def nats_server(servers_directory: Path) -> AsyncIterator[NatsServer]:
    async with NatsServer(servers_directory / "nats") as server:
        yield server


@pytest_asyncio.fixture(scope="session")
async def postgres_server(servers_directory: Path) -> AsyncIterator[PostgresServer]:
    async with PostgresServer(servers_directory / "postgres") as server:
        connection = await asyncpg.connect(server.url)
        await connection.execute(
            "ALTER SYSTEM SET fsync = off"
        )  # hundreds of databases come and go
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()
        yield server


@pytest_asyncio.fixture(scope="session")
async def redis_server(servers_directory: Path) -> AsyncIterator[RedisServer]:
    async with RedisServer(servers_directory / "redis") as server:
        yield server


@pytest_asyncio.fixture
async def nats_url(nats_server: NatsServer) -> str:
    client = await nats.connect(nats_server.url)
    jetstream = client.jetstream()
    for stream in await jetstream.streams_info():
        assert stream.config.name is not None
        await jetstream.delete_stream(stream.config.name)
    await client.close()
    return nats_server.url


@pytest_asyncio.fixture
async def postgres_dsn(postgres_server: PostgresServer) -> str:
    name = f"test_{next(_databases)}"
    connection = await asyncpg.connect(postgres_server.url)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return postgres_server.url.rpartition("/")[0] + f"/{name}"


@pytest_asyncio.fixture
async def redis_url(redis_server: RedisServer) -> str:
    async with Redis.from_url(redis_server.url) as client:
        await client.flushall()
    return redis_server.url


@pytest.fixture
def settings(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    nats_url: str,
    postgres_dsn: str,
    redis_url: str,
) -> Settings:
    """With those that the test's marker `settings` names."""
    marker = request.node.get_closest_marker("settings")
    return Settings(
        data_dir=tmp_path / "data",
        port=0,
        nats_url=nats_url,
        postgres_dsn=postgres_dsn,
        redis_url=redis_url,
        lease_ttl_s=5.0,
        artifact_roots=(tmp_path / "artifacts",),
        **(marker.kwargs if marker is not None else {}),
    )


@pytest_asyncio.fixture
async def system(settings: Settings) -> AsyncIterator[System]:
    async with open_process(settings, addresses(settings)) as process:
        credentials = await write_credentials(settings, process)
        async with Client.connect(credentials.url, key=credentials.key) as client:
            yield System(
                settings=settings,
                process=process,
                client=client,
                url=credentials.url,
                key=credentials.key,
            )

"""A whole system that the tests of one module share, on servers of its own.

For checks that leave nothing behind which another check could stumble over: each uses names of its
own. Starting a system costs a second; these modules make hundreds of checks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
from msgspec.structs import replace

from switchback.bootstrap import write_credentials
from switchback.client import Client
from switchback.embedded import NatsServer, PostgresServer, RedisServer
from switchback.process import ROLES, Role, open_process
from switchback.servers import addresses
from switchback.settings import Settings
from tests.system import System


@asynccontextmanager
async def standing(
    directory: Path, postgres: PostgresServer, **settings: Any
) -> AsyncIterator[System]:
    """A system with its own log, cache and database."""
    name = f"standing_{directory.name.replace('-', '_')}"
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(f'CREATE DATABASE "{name}"')
    await connection.close()
    async with NatsServer(directory / "nats") as nats, RedisServer(directory / "redis") as redis:
        complete = Settings(
            data_dir=directory / "data",
            port=0,
            nats_url=nats.url,
            postgres_dsn=postgres.url.rpartition("/")[0] + f"/{name}",
            redis_url=redis.url,
            artifact_roots=(directory / "artifacts",),
            **settings,
        )
        async with running(complete) as system:
            yield system


@asynccontextmanager
async def beside(
    system: System, *, gateway_id: str, roles: tuple[Role, ...] = ("gateway",), **settings: Any
) -> AsyncIterator[System]:
    """Another process of the same system, with other settings."""
    different = replace(system.settings, gateway_id=gateway_id, **settings)
    async with running(different, roles) as other:
        yield other


@asynccontextmanager
async def running(settings: Settings, roles: tuple[Role, ...] = ROLES) -> AsyncIterator[System]:
    async with open_process(settings, addresses(settings), roles) as process:
        credentials = await write_credentials(settings, process)
        async with Client.connect(credentials.url, key=credentials.key) as client:
            yield System(
                settings=settings,
                process=process,
                client=client,
                url=credentials.url,
                key=credentials.key,
            )

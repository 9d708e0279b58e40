"""A system on servers of its own, which the test may kill, freeze and start again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec
import pytest_asyncio

from projections.verify import Verification, verify
from switchback.bootstrap import write_credentials
from switchback.client import Client
from switchback.embedded import NatsServer, PostgresServer, RedisServer
from switchback.process import Process, open_process
from switchback.servers import addresses
from switchback.settings import Settings

SETTLE_SECONDS = 30.0


class Rig(msgspec.Struct, frozen=True, kw_only=True):
    """Three servers and one process on them: a `tests.system.System` that may lose them."""

    nats: NatsServer
    postgres: PostgresServer
    redis: RedisServer
    settings: Settings
    process: Process
    client: Client
    url: str
    key: str

    async def projected(self) -> None:
        """Return when the tables have applied everything on the log."""
        head = await self.process.jetstream.events.position()
        async with asyncio.timeout(SETTLE_SECONDS):
            while not await self.process.queries.caught_up(head, within_s=1.0):
                pass

    async def verified(self) -> list[Verification]:
        """What `switchback verify` finds once the tables are at the log's head."""
        await self.projected()
        return await verify(log=self.process.jetstream.events, pool=self.process.pool)


@asynccontextmanager
async def rigged(directory: Path) -> AsyncIterator[Rig]:
    async with AsyncExitStack() as stack:
        nats = await stack.enter_async_context(NatsServer(directory / "nats"))
        postgres = await stack.enter_async_context(PostgresServer(directory / "postgres"))
        redis = await stack.enter_async_context(RedisServer(directory / "redis"))
        settings = Settings(
            data_dir=directory / "data",
            port=0,
            nats_url=nats.url,
            postgres_dsn=postgres.url,
            redis_url=redis.url,
            lease_ttl_s=3.0,
        )
        process = await stack.enter_async_context(open_process(settings, addresses(settings)))
        credentials = await write_credentials(settings, process)
        client = await stack.enter_async_context(
            Client.connect(credentials.url, key=credentials.key)
        )
        yield Rig(
            nats=nats,
            postgres=postgres,
            redis=redis,
            settings=settings,
            process=process,
            client=client,
            url=credentials.url,
            key=credentials.key,
        )


@pytest_asyncio.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    """With the endpoint `scores`."""
    async with rigged(tmp_path) as rig:
        await rig.client.register_model("fraud")
        for version in ("1.0.0", "2.0.0"):
            await rig.client.register_version("fraud", version, runtime="echo")
        await rig.client.create_endpoint("scores", model="fraud", version="1.0.0")
        yield rig

"""The servers behind one data directory: external where a setting names them, else embedded.

Guarantees: at most one process owns a data directory's embedded servers (a file lock that the
operating system lets go of when the owner dies); whoever comes second may attach to them.
"""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import IO

import msgspec

from switchback.embedded import NatsServer, PostgresServer, RedisServer, Server
from switchback.settings import Settings


class DataDirectoryBusy(Exception):
    """Another `up` owns the directory."""

    def __init__(self, directory: Path) -> None:
        super().__init__(f"{directory} is in use by another switchback process")
        self.directory = directory


class Addresses(msgspec.Struct, frozen=True, kw_only=True):
    nats: str
    postgres: str
    redis: str


@asynccontextmanager
async def own_servers(settings: Settings) -> AsyncIterator[Addresses]:
    """Start the embedded servers that the settings ask for. Raises DataDirectoryBusy."""
    async with AsyncExitStack() as stack:
        lock = stack.enter_context(_lock_file(settings.data_dir))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataDirectoryBusy(settings.data_dir) from None
        servers = _embedded(settings)
        async with asyncio.TaskGroup() as starting:
            for server in servers:
                stack.push_async_callback(server.stop)
                starting.create_task(server.start())
        yield addresses(settings)


@asynccontextmanager
async def reach_servers(settings: Settings) -> AsyncIterator[Addresses]:
    """The servers of a running `up`, or our own for as long as the block lasts."""
    try:
        async with own_servers(settings) as found:
            yield found
    except DataDirectoryBusy:
        yield addresses(settings)


def addresses(settings: Settings) -> Addresses:
    """Where the servers of these settings are, running or not."""
    root = settings.data_dir
    return Addresses(
        nats=settings.nats_url or NatsServer(root / "nats").url,
        postgres=settings.postgres_dsn or PostgresServer(root / "postgres").url,
        redis=settings.redis_url or RedisServer(root / "redis").url,
    )


def _embedded(settings: Settings) -> list[Server]:
    root = settings.data_dir
    servers: list[Server] = []
    if settings.nats_url is None:
        servers.append(NatsServer(root / "nats"))
    if settings.postgres_dsn is None:
        servers.append(PostgresServer(root / "postgres"))
    if settings.redis_url is None:
        servers.append(RedisServer(root / "redis"))
    return servers


def _lock_file(directory: Path) -> IO[bytes]:
    directory.mkdir(parents=True, exist_ok=True)
    return (directory / "lock").open("wb")

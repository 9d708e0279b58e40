"""One log of each kind: in memory, in a file, on one NATS server, on three."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from events import EventLog
from events.files import open_file_log
from events.jetstream import JetStream
from events.memory import open_memory_log
from switchback.embedded import NatsServer, nats_cluster
from tests.events.servers import EVENTS_STREAM, delete_stream


@pytest_asyncio.fixture(scope="session")
async def nats_three(servers_directory: Path) -> AsyncIterator[list[NatsServer]]:
    """Three servers of one cluster."""
    servers = nats_cluster(servers_directory / "cluster", secret="three-servers")
    try:
        await asyncio.gather(*(server.start() for server in servers))
        async with JetStream.connect(",".join(server.url for server in servers), replicas=3):
            pass  # they have found each other
        yield servers
    finally:
        await asyncio.gather(*(server.stop() for server in servers))


@pytest_asyncio.fixture
async def jetstream(nats_url: str) -> AsyncIterator[JetStream]:
    """One replica, empty streams; leases run out fast and wake-ups come again fast."""
    async with JetStream.connect(nats_url, lease_ttl_s=0.6, wake_again_s=0.5) as jetstream:
        yield jetstream


@pytest_asyncio.fixture
async def jetstream_three(nats_three: list[NatsServer]) -> AsyncIterator[JetStream]:
    """Three replicas, an empty log."""
    url = ",".join(server.url for server in nats_three)
    await delete_stream(url, EVENTS_STREAM)
    async with JetStream.connect(url, replicas=3) as jetstream:
        yield jetstream


@pytest_asyncio.fixture
async def memory_log() -> AsyncIterator[EventLog]:
    async with open_memory_log() as log:
        yield log


@pytest_asyncio.fixture
async def file_log(tmp_path: Path) -> AsyncIterator[EventLog]:
    async with open_file_log(tmp_path / "log.jsonl") as log:
        yield log


@pytest.fixture
def jetstream_log(jetstream: JetStream) -> EventLog:
    return jetstream.events


@pytest.fixture
def jetstream_three_log(jetstream_three: JetStream) -> EventLog:
    return jetstream_three.events


@pytest.fixture(params=["memory_log", "file_log", "jetstream_log", "jetstream_three_log"])
def log(request: pytest.FixtureRequest) -> EventLog:
    """An empty log of each kind."""
    log = request.getfixturevalue(request.param)
    assert isinstance(log, EventLog)
    return log

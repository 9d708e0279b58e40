"""Directories for servers, and owners in processes of their own that can be killed."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest

from switchback.embedded import NatsServer, PostgresServer, RedisServer, Server

Owner: TypeAlias = Callable[..., subprocess.Popen[bytes]]

OWNER_PROGRAM = """
import asyncio, json, sys
from pathlib import Path
from switchback.embedded import NatsServer, PostgresServer, RedisServer

async def main(directory):
    servers = [kind(directory / kind.name) for kind in (NatsServer, PostgresServer, RedisServer)]
    for server in servers:
        await server.start()
    print(json.dumps({server.name: [server.pid, server.url] for server in servers}), flush=True)
    await asyncio.to_thread(sys.stdin.read)  # until our parent closes it
    for server in servers:
        await server.stop()

asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.fixture(params=[NatsServer, PostgresServer, RedisServer], ids=["nats", "postgres", "redis"])
def kind(request: pytest.FixtureRequest) -> type[Server]:
    """Each kind of server in turn."""
    kind: type[Server] = request.param
    return kind


@pytest.fixture
def start_owner() -> Iterator[Owner]:
    """Starts a Python process that owns one server of each kind below a directory."""
    owners: list[subprocess.Popen[bytes]] = []

    def start(directory: Path, *, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        owner = subprocess.Popen(
            [*prefix, sys.executable, "-c", OWNER_PROGRAM, str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )
        owners.append(owner)
        return owner

    yield start
    for owner in owners:
        owner.kill()
        owner.communicate()


def servers_of(owner: subprocess.Popen[bytes]) -> dict[str, tuple[int, str]]:
    """Server name -> (process id, url), once all of them answer."""
    assert owner.stdout is not None
    answer: Any = msgspec.json.decode(owner.stdout.readline(), type=dict[str, tuple[int, str]])
    return dict(answer)

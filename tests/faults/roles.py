"""Roles in processes of their own, which a test may kill, stop and start again."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import psutil

from switchback.client import Client
from switchback.client.credentials import read_credentials
from switchback.embedded import NatsServer, PostgresServer, RedisServer
from switchback.settings import Settings
from tests.roles.test_roles import served

LEASE_SECONDS = 2.0
NODE = "node-1"


class Roles:
    """A gateway and nodes. As a `tests.system.System` it is the gateway, and the node NODE."""

    def __init__(
        self,
        nats: NatsServer,
        directory: Path,
        environment: Mapping[str, str],
        stack: AsyncExitStack,
    ) -> None:
        self.nats = nats
        self._directory = directory
        self._environment = environment
        self._stack = stack
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self.settings = Settings(data_dir=directory / "gateway-1", node_id=NODE)
        self.client: Client
        self.url = ""
        self.key = ""

    async def start(self, name: str) -> subprocess.Popen[str]:
        """The role before the dash, once it plays it."""
        own = {"SWITCHBACK_NODE_ID": name, "SWITCHBACK_GATEWAY_ID": name}
        process = served(
            name.partition("-")[0], self._directory / name, {**self._environment, **own}
        )
        started = await asyncio.to_thread(self._stack.enter_context, process)
        self.processes[name] = started
        return started

    async def connect(self) -> None:
        credentials = read_credentials(self.settings.data_dir)
        self.url, self.key = credentials.url, credentials.key
        client = Client.connect(credentials.url, key=credentials.key)
        self.client = await self._stack.enter_async_context(client)

    async def stop(self, name: str) -> int:
        """Its exit code."""
        process = self.processes.pop(name)
        process.terminate()
        return await asyncio.to_thread(process.wait, 60)

    async def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        await asyncio.to_thread(process.wait)

    async def state_of(self, node: str, state: str) -> None:
        """Returns once the log says so of the node."""
        while (await self.client.node(node))["state"] != state:
            await self.client.register_model("tick")  # moves the position that reads wait for


def models_below(pid: int) -> list[psutil.Process]:
    """The processes of language models that a process has started itself."""
    children = psutil.Process(pid).children()
    return [child for child in children if "language.host" in " ".join(child.cmdline())]


@asynccontextmanager
async def roles(directory: Path) -> AsyncIterator[Roles]:
    """On servers of their own."""
    async with AsyncExitStack() as stack:
        nats, postgres, redis = [
            await stack.enter_async_context(server(directory / server.name))
            for server in (NatsServer, PostgresServer, RedisServer)
        ]
        environment = {
            "PATH": "/usr/bin:/bin",
            "SWITCHBACK_NATS_URL": nats.url,
            "SWITCHBACK_POSTGRES_DSN": postgres.url,
            "SWITCHBACK_REDIS_URL": redis.url,
            "SWITCHBACK_SECRET": "shared by every gateway of this cluster",
            "SWITCHBACK_LEASE_TTL_S": str(LEASE_SECONDS),
        }
        playing = Roles(nats, directory, environment, stack)
        playing._nats = nats
        await playing.start("projector")  # makes the streams and tables
        await asyncio.gather(*(playing.start(name) for name in ("reactor", NODE, "gateway-1")))
        await playing.connect()
        yield playing

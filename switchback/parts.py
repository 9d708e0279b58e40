"""What every process is made of: connections, its fold of the log, and the parts of its roles."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from engine.runtimes import RuntimeSettings
from events.jetstream import JetStream
from handlers.commands import CommandHandler
from handlers.following import Follower
from handlers.judging import Judging
from handlers.projector import Projector
from handlers.reactions.leader import lead
from handlers.routing import Routing
from handlers.worker import NodeWorker
from projections import Pool, PoolSettings, Queries
from projections.cache import Cache
from projections.failures import ProjectionStopped
from projections.progress import Progress
from projections.reader import Reader, become_reader, reader_settings
from projections.snapshots import Snapshots
from switchback.ending import end
from switchback.reacting import reactions
from switchback.servers import Addresses
from switchback.settings import Settings

_log = structlog.get_logger(__name__)

VERSIONS_SECONDS: Final = 60.0
"""How long a process waits at its start for its versions to be loaded; it goes on without them."""
SNAPSHOT_VERSION: Final = 3
"""Raise it whenever a state of engine.decisions changes its shape."""


def utc_now() -> datetime:
    """The one clock of a process."""
    return datetime.now(UTC)


class Parts:
    """Starts parts and remembers how to stop them."""

    def __init__(self, settings: Settings, addresses: Addresses, stack: AsyncExitStack) -> None:
        self.settings = settings
        self.addresses = addresses
        self.stack = stack
        self.failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.instance = secrets.token_hex(4)
        """Tells this process from others that are configured alike."""
        self.gateway_id = f"{settings.gateway_id}-{self.instance}"
        self.routing = Routing()
        self.runtimes = RuntimeSettings(
            artifact_roots=settings.all_artifact_roots,
            python_enabled=settings.python_runtime,
            python_memory_bytes_max=settings.python_memory_bytes,
            upstream_keys=settings.upstream_keys,
        )

    def run(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        """In the background until the process stops."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._ended)
        self.stack.push_async_callback(end, task)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled() or self.failure.done():
            return
        error = task.exception() or RuntimeError(f"{task.get_name()} ended")
        _log.error("a part of the process failed", part=task.get_name(), error=str(error))
        self.failure.set_exception(error)
        self.failure.exception()  # said already, should nobody come to wait for it

    async def connect(self) -> None:
        settings, stack = self.settings, self.stack
        self.jetstream = await stack.enter_async_context(
            JetStream.connect(
                self.addresses.nats,
                replicas=settings.nats_replicas,
                lease_ttl_s=settings.lease_ttl_s,
            )
        )
        self.commands = CommandHandler(self.jetstream.events)
        self.cache = await stack.enter_async_context(Cache(self.addresses.redis))
        pool_settings = PoolSettings(dsn=self.addresses.postgres)
        self.pool = await stack.enter_async_context(Pool(pool_settings))
        self.progress = Progress(self.pool)
        reading = await stack.enter_async_context(
            Pool(reader_settings(pool_settings), prepare=become_reader)
        )
        self.queries = Queries(Reader(reading, progress=self.progress), cache=self.cache)

    async def follow(self) -> None:
        snapshots = Snapshots(self.addresses.redis, name="routing", version=SNAPSHOT_VERSION)
        self.stack.push_async_callback(snapshots.close)
        self.follower = Follower(self.routing, self.jetstream.events, snapshots=snapshots)
        self.run("follower", self.follower.run())
        await self.routing.reach(await self.jetstream.events.position())
        self.judging = Judging(
            log=self.jetstream.events, traffic=self.jetstream.traffic, now=utc_now
        )

    def project(self) -> Projector:
        projector = Projector(
            log=self.jetstream.events, pool=self.pool, progress=self.progress, cache=self.cache
        )
        self.run("projector", _until_stopped(projector))
        return projector

    def react(self) -> None:
        found = reactions(
            routing=self.routing,
            commands=self.commands,
            judging=self.judging,
            jetstream=self.jetstream,
            settings=self.settings,
            now=utc_now,
        )
        for name, reaction in found.items():
            work = lead(
                self.jetstream.leases, f"reaction.{name}", holder=self.instance, work=reaction
            )
            self.run(name, work)

    async def work(self) -> NodeWorker:
        worker = NodeWorker(
            node_id=self.settings.node_id,
            holder=self.instance,
            budget_bytes=self.settings.node_memory_bytes,
            runtimes=self.runtimes,
            routing=self.routing,
            commands=self.commands,
            bus=self.jetstream.bus,
            leases=self.jetstream.leases,
            now=utc_now,
        )
        self.run("node", worker.run())
        if not await worker.settled(within_s=VERSIONS_SECONDS):
            _log.warning("not every version is loaded yet", node=self.settings.node_id)
        return worker


async def _until_stopped(projector: Projector) -> None:
    """A projector that stopped at an event says so in `/readyz`; everything else goes on."""
    try:
        await projector.run()
    except ProjectionStopped as error:
        _log.error("the projector stopped", error=str(error))
        await asyncio.Event().wait()

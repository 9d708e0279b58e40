"""What a process is made of: one connection, one fold of the log, and the roles it plays.

`open_process` returns when every part works; leaving it stops the parts in reverse order, so that
requests under way are answered while what they need is still there.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Collection, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from engine.runtimes import RuntimeSettings, available_runtimes
from events.jetstream import JetStream
from handlers.batching import Batchings
from handlers.batching_metrics import BatchingMetrics
from handlers.budget_metrics import BudgetMetrics
from handlers.budgets import Budgets, steady_clock
from handlers.commands import CommandHandler
from handlers.direct import Direct
from handlers.directory import Directory
from handlers.executions import BusExecutor, Executor
from handlers.following import Follower
from handlers.gateway import Gateway
from handlers.gateways import Gateways
from handlers.http.app import build_app
from handlers.http.front import Limits, Services
from handlers.http.server import HttpServer
from handlers.judging import Judging
from handlers.nodes import Nodes
from handlers.operations import Operations
from handlers.projector import Projector
from handlers.questions import Questions
from handlers.reactions.leader import lead
from handlers.readiness import Readiness
from handlers.routing import Routing
from handlers.services import CommandServices
from handlers.traffic.metrics import TrafficMetrics
from handlers.traffic.windows import Windows
from handlers.upstreams import Upstreams
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

Role: TypeAlias = Literal["gateway", "projector", "reactor", "node"]
ROLES: Final[tuple[Role, ...]] = ("gateway", "projector", "reactor", "node")
VERSIONS_SECONDS: Final = 60.0
"""How long a process waits at its start for its versions to be loaded; it goes on without them."""
TABLES_SECONDS: Final = 10.0
"""How long it then waits for the tables to be up to date; likewise."""
KEY_PREFIX: Final = "sb_"
SNAPSHOT_VERSION: Final = 3
"""Raise it whenever a state of engine.decisions changes its shape."""


def utc_now() -> datetime:
    """The one clock of a process."""
    return datetime.now(UTC)


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """The running parts that others reach for."""

    jetstream: JetStream
    routing: Routing
    commands: CommandHandler
    operations: Operations
    queries: Queries
    cache: Cache
    pool: Pool
    projector: Projector | None
    worker: NodeWorker | None
    http: HttpServer | None
    failure: asyncio.Future[None]
    """Fails when a part ends by itself: the process should stop."""


class _Parts:
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

    def operate(self, gateways: Gateways) -> Operations:
        key_secret = self.settings.derive("keys")
        return Operations(
            routing=self.routing,
            commands=self.commands,
            nodes=Nodes(routing=self.routing, bus=self.jetstream.bus),
            gateways=gateways,
            questions=Questions(
                log=self.jetstream.events,
                routing=self.routing,
                receipt_secret=self.settings.derive("receipts"),
                now=utc_now,
            ),
            judging=self.judging,
            runtimes=frozenset(available_runtimes(self.runtimes)),
            artifact_roots=self.runtimes.artifact_roots,
            checks=frozenset(self.settings.check_functions),
            key_secret=lambda command_id: _key(key_secret, command_id),
            now=utc_now,
        )

    async def open_gateway(
        self, operations: Operations, projector: Projector | None, worker: NodeWorker | None
    ) -> HttpServer:
        settings = self.settings
        windows = Windows(gateway=self.gateway_id, log=self.jetstream.traffic, clock=time.time)
        self.run("windows", windows.run())
        budgets = Budgets(
            gateway=self.gateway_id,
            log=self.jetstream.traffic,
            keyring=self.routing.keyring,
            clock=steady_clock(),
        )
        await budgets.rebuild()
        self.run("budgets", budgets.run())
        upstreams = Upstreams(routing=self.routing, settings=self.runtimes)
        self.stack.push_async_callback(upstreams.close)
        executors: tuple[Executor, ...] = (upstreams, BusExecutor(self.jetstream.bus))
        if worker is not None:
            executors = (executors[0], worker.executor, *executors[1:])
        gateway = Gateway(
            routing=self.routing,
            executors=executors,
            windows=windows,
            receipt_secret=settings.derive("receipts"),
            comparators=settings.comparators(),
            checks=settings.checks(),
        )
        self.stack.push_async_callback(gateway.close)
        metrics = CollectorRegistry()
        metrics.register(TrafficMetrics(windows))
        metrics.register(BudgetMetrics(budgets.accounting))
        batching_metrics = BatchingMetrics(worker)
        metrics.register(batching_metrics)
        services = Services(
            tenants=self.routing.keyring,
            operations=operations,
            queries=self.queries,
            inferences=gateway,
            budgets=budgets,
            direct=Direct(routing=self.routing, executors=executors),
            directory=Directory(self.routing),
            batchings=Batchings(routing=self.routing, bus=self.jetstream.bus, here=worker),
            readiness=Readiness(
                log=self.jetstream.events,
                routing=self.routing,
                follower=self.follower,
                projector=projector,
                cache=self.cache,
                worker=worker,
            ),
            log=self.jetstream.events,
            metrics=metrics,
            before_scrape=batching_metrics.refresh,
        )
        limits = Limits(
            inference_body_bytes_max=settings.inference_body_bytes_max,
            inference_timeout_s=settings.inference_timeout_s,
        )
        app = build_app(services, limits=limits)
        http = HttpServer(app.asgi, streams=app.streams, host=settings.host, port=settings.port)
        self.stack.push_async_callback(http.stop)
        await http.start()
        return http


@asynccontextmanager
async def open_process(
    settings: Settings, addresses: Addresses, roles: Collection[Role] = ROLES
) -> AsyncIterator[Process]:
    """The parts of these roles, working. Raises LogUnavailable, StreamMismatch, ServerFailed."""
    async with AsyncExitStack() as stack:
        parts = _Parts(settings, addresses, stack)
        await parts.connect()
        await parts.follow()
        projector = parts.project() if "projector" in roles else None
        if "reactor" in roles:
            parts.react()
        worker = await parts.work() if "node" in roles else None
        gateways = Gateways(
            gateway_id=parts.gateway_id,
            routing=parts.routing,
            bus=parts.jetstream.bus,
            leases=parts.jetstream.leases,
        )
        operations = parts.operate(gateways)
        http = None
        if projector is not None:
            await parts.queries.caught_up(parts.routing.position, within_s=TABLES_SECONDS)
        if "gateway" in roles:
            parts.run("gateways", gateways.run())
            services = CommandServices(bus=parts.jetstream.bus, operations=operations)
            stack.push_async_callback((await services.serve()).stop)
            http = await parts.open_gateway(operations, projector, worker)
        yield Process(
            jetstream=parts.jetstream,
            routing=parts.routing,
            commands=parts.commands,
            operations=operations,
            queries=parts.queries,
            cache=parts.cache,
            pool=parts.pool,
            projector=projector,
            worker=worker,
            http=http,
            failure=parts.failure,
        )


async def _until_stopped(projector: Projector) -> None:
    """A projector that stopped at an event says so in `/readyz`; everything else goes on."""
    try:
        await projector.run()
    except ProjectionStopped as error:
        _log.error("the projector stopped", error=str(error))
        await asyncio.Event().wait()


def _key(secret: bytes, command_id: UUID) -> str:
    digest = hmac.digest(secret, command_id.bytes, "sha256")
    return KEY_PREFIX + urlsafe_b64encode(digest).rstrip(b"=").decode()

"""A process: the roles it plays, and their running parts.

`open_process` returns when every part works; leaving it stops the parts in reverse order, so that
requests under way are answered while what they need is still there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Literal, TypeAlias

import msgspec

from events.jetstream import JetStream
from handlers.commands import CommandHandler
from handlers.gateways import Gateways
from handlers.http.server import HttpServer
from handlers.operations import Operations
from handlers.projector import Projector
from handlers.routing import Routing
from handlers.services import CommandServices
from handlers.worker import NodeWorker
from projections import Pool, Queries
from projections.cache import Cache
from switchback.parts import Parts
from switchback.servers import Addresses
from switchback.serving import open_gateway, operations_of
from switchback.settings import Settings

Role: TypeAlias = Literal["gateway", "projector", "reactor", "node"]
ROLES: Final[tuple[Role, ...]] = ("gateway", "projector", "reactor", "node")
TABLES_SECONDS: Final = 10.0
"""How long a process waits at its start for the tables to be up to date, when its versions are
loaded; it goes on without."""


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


@asynccontextmanager
async def open_process(
    settings: Settings, addresses: Addresses, roles: Collection[Role] = ROLES
) -> AsyncIterator[Process]:
    """The parts of these roles, working. Raises LogUnavailable, StreamMismatch, ServerFailed."""
    async with AsyncExitStack() as stack:
        parts = Parts(settings, addresses, stack)
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
        operations = operations_of(parts, gateways)
        http = None
        if projector is not None:
            await parts.queries.caught_up(parts.routing.position, within_s=TABLES_SECONDS)
        if "gateway" in roles:
            parts.run("gateways", gateways.run())
            services = CommandServices(bus=parts.jetstream.bus, operations=operations)
            stack.push_async_callback((await services.serve()).stop)
            http = await open_gateway(parts, operations, projector, worker)
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

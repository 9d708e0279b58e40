"""What a gateway is made of: who decides and asks, who counts, and the door it is reached by."""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from typing import Final
from uuid import UUID

from prometheus_client import CollectorRegistry

from engine.runtimes import available_runtimes
from handlers.batching import Batchings
from handlers.batching_metrics import BatchingMetrics
from handlers.budget_metrics import BudgetMetrics
from handlers.budgets import Budgets, steady_clock
from handlers.direct import Direct
from handlers.directory import Directory
from handlers.executions import BusExecutor, Executor
from handlers.gateway import Gateway
from handlers.gateways import Gateways
from handlers.http.app import build_app
from handlers.http.front import Limits, Services
from handlers.http.server import HttpServer
from handlers.nodes import Nodes
from handlers.operations import Operations
from handlers.projector import Projector
from handlers.questions import Questions
from handlers.readiness import Readiness
from handlers.traffic.metrics import TrafficMetrics
from handlers.traffic.windows import Windows
from handlers.upstream_metrics import UpstreamMetrics
from handlers.upstreams import Upstreams
from handlers.worker import NodeWorker
from switchback.parts import Parts, utc_now

KEY_PREFIX: Final = "sb_"


def operations_of(parts: Parts, gateways: Gateways) -> Operations:
    """What commands and questions are answered by, over HTTP and over NATS."""
    key_secret = parts.settings.derive("keys")
    return Operations(
        routing=parts.routing,
        commands=parts.commands,
        nodes=Nodes(routing=parts.routing, bus=parts.jetstream.bus),
        gateways=gateways,
        questions=Questions(
            log=parts.jetstream.events,
            routing=parts.routing,
            receipt_secret=parts.settings.derive("receipts"),
            now=utc_now,
        ),
        judging=parts.judging,
        runtimes=frozenset(available_runtimes(parts.runtimes)),
        artifact_roots=parts.runtimes.artifact_roots,
        checks=frozenset(parts.settings.check_functions),
        key_secret=lambda command_id: _key(key_secret, command_id),
        now=utc_now,
    )


async def open_gateway(
    parts: Parts, operations: Operations, projector: Projector | None, worker: NodeWorker | None
) -> HttpServer:
    """The gateway of this process, answering; `projector` and `worker` are the process's own, if
    it has them. Raises LogError."""
    settings = parts.settings
    windows = Windows(gateway=parts.gateway_id, log=parts.jetstream.traffic, clock=time.time)
    parts.run("windows", windows.run())
    budgets = await _budgets(parts)
    upstreams = Upstreams(routing=parts.routing, settings=parts.runtimes)
    parts.stack.push_async_callback(upstreams.close)
    executors = _executors(parts, upstreams, worker)
    gateway = Gateway(
        routing=parts.routing,
        executors=executors,
        windows=windows,
        receipt_secret=settings.derive("receipts"),
        comparators=settings.comparators(),
        checks=settings.checks(),
    )
    parts.stack.push_async_callback(gateway.close)
    batching_metrics = BatchingMetrics(worker)
    metrics = CollectorRegistry()
    for collector in (
        TrafficMetrics(windows),
        BudgetMetrics(budgets.accounting),
        UpstreamMetrics(upstreams),
        batching_metrics,
    ):
        metrics.register(collector)
    services = Services(
        tenants=parts.routing.keyring,
        operations=operations,
        queries=parts.queries,
        inferences=gateway,
        budgets=budgets,
        direct=Direct(routing=parts.routing, executors=executors),
        directory=Directory(parts.routing),
        batchings=Batchings(routing=parts.routing, bus=parts.jetstream.bus, here=worker),
        readiness=_readiness(parts, projector, worker),
        log=parts.jetstream.events,
        metrics=metrics,
        before_scrape=batching_metrics.refresh,
    )
    return await _answering(parts, services)


async def _budgets(parts: Parts) -> Budgets:
    budgets = Budgets(
        gateway=parts.gateway_id,
        log=parts.jetstream.traffic,
        keyring=parts.routing.keyring,
        clock=steady_clock(),
    )
    await budgets.rebuild()
    parts.run("budgets", budgets.run())
    return budgets


def _executors(
    parts: Parts, upstreams: Upstreams, worker: NodeWorker | None
) -> tuple[Executor, ...]:
    """What is nearest first."""
    here = () if worker is None else (worker.executor,)
    return (upstreams, *here, BusExecutor(parts.jetstream.bus))


def _readiness(parts: Parts, projector: Projector | None, worker: NodeWorker | None) -> Readiness:
    return Readiness(
        log=parts.jetstream.events,
        routing=parts.routing,
        follower=parts.follower,
        projector=projector,
        cache=parts.cache,
        worker=worker,
    )


async def _answering(parts: Parts, services: Services) -> HttpServer:
    settings = parts.settings
    limits = Limits(
        inference_body_bytes_max=settings.inference_body_bytes_max,
        inference_timeout_s=settings.inference_timeout_s,
    )
    app = build_app(services, limits=limits)
    http = HttpServer(app.asgi, streams=app.streams, host=settings.host, port=settings.port)
    parts.stack.push_async_callback(http.stop)
    await http.start()
    return http


def _key(secret: bytes, command_id: UUID) -> str:
    digest = hmac.digest(secret, command_id.bytes, "sha256")
    return KEY_PREFIX + urlsafe_b64encode(digest).rstrip(b"=").decode()

"""The application over real HTTP, standing on fakes of its ports and a memory log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import httpx
import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from events import EventLog, connect
from handlers.direct import Direct
from handlers.directory import Directory
from handlers.http.app import HttpApp, build_app
from handlers.http.front import Limits, Services
from handlers.http.ports import Budgets
from handlers.http.server import HttpServer
from handlers.http.streams import Streams
from handlers.routing import Routing
from projections.queries import Queries
from tests.http.fakes import (
    FakeBatchings,
    FakeBudgets,
    FakeInferences,
    FakeOperations,
    FakeQueries,
    FakeReadiness,
    FakeTenants,
)

INFERENCE_BODY_BYTES_MAX = 2 * 1024 * 1024


class House:
    """The application, what it stands on, and a client for each kind of key."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.tenants = FakeTenants()
        self.operations = FakeOperations(log, self.tenants)
        self.inferences = FakeInferences()
        self.batchings = FakeBatchings()
        self.readiness = FakeReadiness()
        self.budgets: Budgets = FakeBudgets()
        self.app = self._app()
        self.server = HttpServer(self.app.asgi, streams=self.app.streams)
        self.admin = self.tenants.add("acme", "admin", "operate", "infer", "feedback", "read")
        self.client = httpx.AsyncClient(timeout=20)

    def _app(self) -> HttpApp:
        routing = Routing()
        services = Services(
            tenants=self.tenants,
            operations=self.operations,
            queries=cast(Queries, FakeQueries(self.operations)),
            inferences=self.inferences,
            budgets=self.budgets,
            direct=Direct(routing=routing, executors=()),
            directory=Directory(routing),
            batchings=self.batchings,
            readiness=self.readiness,
            log=self.log,
            metrics=CollectorRegistry(),
            before_scrape=self.batchings.scraped,
        )
        return build_app(
            services,
            limits=Limits(inference_body_bytes_max=INFERENCE_BODY_BYTES_MAX),
            streams=Streams(self.log, heartbeat_seconds=0.05, streams_max=8),
        )

    async def start(self) -> None:
        await self.server.start()
        self.client.base_url = httpx.URL(self.server.url)
        self.client.headers["Authorization"] = f"Bearer {self.admin}"

    async def stop(self) -> None:
        await self.client.aclose()
        await self.server.stop()

    async def registered(self) -> None:
        """A model with a version behind an endpoint."""
        for method, path, body in (
            ("POST", "/models", {"name": "fraud"}),
            ("POST", "/models/fraud/versions", {"version": "1.0.0", "runtime": "echo"}),
            ("PUT", "/endpoints/score", {"model": "fraud", "version": "1.0.0"}),
        ):
            response = await self.client.request(method, f"/api/v1{path}", json=body)
            assert response.status_code == 201, response.text


@pytest_asyncio.fixture(scope="session")
async def shared() -> AsyncIterator[House]:
    """A house with a registered model, for tests that leave no event behind."""
    async with connect("memory:") as log:
        made = House(log)
        await made.start()
        await made.registered()
        yield made
        await made.stop()


@pytest_asyncio.fixture
async def house() -> AsyncIterator[House]:
    async with connect("memory:") as log:
        made = House(log)
        await made.start()
        yield made
        await made.stop()


@pytest.fixture
def client(house: House) -> httpx.AsyncClient:
    return house.client

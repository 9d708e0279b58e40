"""The whole route table against every kind of key: nobody learns or does what they may not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import cast

import httpx
import pytest
import pytest_asyncio
from litestar import Litestar, get
from prometheus_client import CollectorRegistry

from events.catalogue.tenants import Quota
from events.memory import MemoryLog
from handlers.direct import Direct
from handlers.directory import Directory
from handlers.http.access import SCOPES, Route, Undeclared, needs, route_table
from handlers.http.app import build_app
from handlers.http.front import Services
from handlers.routing import Routing
from projections.queries import Queries
from tests.http.conftest import House
from tests.http.fakes import (
    FakeBatchings,
    FakeBudgets,
    FakeInferences,
    FakeOperations,
    FakeQueries,
    FakeReadiness,
    FakeTenants,
)
from tests.http.test_problems import checked


def _routes() -> list[Route]:
    tenants = FakeTenants()
    log = MemoryLog()
    operations = FakeOperations(log, tenants)
    routing = Routing()
    services = Services(
        tenants=tenants,
        operations=operations,
        queries=cast(Queries, FakeQueries(operations)),
        inferences=FakeInferences(),
        budgets=FakeBudgets(),
        direct=Direct(routing=routing, executors=()),
        directory=Directory(routing),
        batchings=FakeBatchings(),
        readiness=FakeReadiness(),
        log=log,
        metrics=CollectorRegistry(),
        before_scrape=FakeBatchings().scraped,
    )
    return route_table(build_app(services).litestar)


ROUTES = _routes()
GUARDED = [route for route in ROUTES if route.access != "public"]
OF_TENANT = [route for route in GUARDED if "{tenant}" in route.path]
by_route = pytest.mark.parametrize(
    "route", GUARDED, ids=lambda route: f"{route.method} {route.path}"
)


@pytest_asyncio.fixture(scope="session")
async def anonymous(shared: House) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=shared.server.url) as client:
        yield client


def path_of(route: Route, tenant: str) -> str:
    names = {"tenant": tenant}
    path = route.path
    for part in ("tenant", "model", "version", "endpoint", "rollout", "alias", "node", "key"):
        path = path.replace(f"{{{part}}}", names.get(part, "x"))
    return path


def test_every_route_that_tells_of_a_tenant_is_guarded() -> None:
    open_ = {route.path for route in ROUTES if route.access == "public"}
    operations = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/asyncapi.json"}
    assert open_ == operations | {"/v2", "/v2/health/live", "/v2/health/ready"}


def test_every_resource_can_be_named_within_a_tenant() -> None:
    control = [route for route in GUARDED if route.path.startswith("/api/")]
    own = {(r.method, r.path) for r in control if "{tenant}" not in r.path}
    named = {(r.method, r.path.replace("/tenants/{tenant}", "")) for r in OF_TENANT}
    assert own - named == {("POST", "/api/v1/tenants")}
    assert named - own == {("GET", "/api/v1")}


@by_route
@pytest.mark.parametrize("header", [None, "Bearer nobody", "Basic eDp5", "Bearer", "Bearer \xff"])
async def test_without_a_valid_key_nothing_answers(
    shared: House, anonymous: httpx.AsyncClient, route: Route, header: str | None
) -> None:
    headers = [] if header is None else [(b"Authorization", header.encode("latin-1"))]
    response = await anonymous.request(route.method, path_of(route, "acme"), headers=headers)
    checked(response, "unauthenticated")
    assert response.headers["www-authenticate"] == "Bearer"


@by_route
async def test_a_key_without_the_scope_is_forbidden(shared: House, route: Route) -> None:
    before = await shared.log.position()
    others = [scope for scope in SCOPES if scope not in ("admin", route.access)]
    key = shared.tenants.add("acme", *others)
    response = await shared.client.request(
        route.method, path_of(route, "acme"), headers={"Authorization": f"Bearer {key}"}
    )
    checked(response, "forbidden")
    assert await shared.log.position() == before


@pytest.mark.parametrize("route", OF_TENANT, ids=lambda route: f"{route.method} {route.path}")
@pytest.mark.parametrize("tenant", ["acme", "nowhere", "system", "a.b", "*"])
async def test_a_key_of_another_tenant_is_forbidden_whether_or_not_there_is_anything(
    shared: House, route: Route, tenant: str
) -> None:
    before = await shared.log.position()
    key = shared.tenants.add("globex", "operate", "infer", "feedback", "read")
    response = await shared.client.request(
        route.method,
        path_of(route, tenant),
        headers={"Authorization": f"Bearer {key}"},
        json={"version": "1.0.0"},
    )
    checked(response, "forbidden")
    assert await shared.log.position() == before


async def test_an_administrator_reaches_other_tenants_that_exist(house: House) -> None:
    house.tenants.add("globex", "read")
    body = {"name": "churn"}
    made = await house.client.post("/api/v1/tenants/globex/models", json=body)
    assert made.status_code == 201
    assert ("globex", "churn") in house.operations.models
    response = await house.client.post("/api/v1/tenants/nowhere/models", json=body)
    assert "tenant 'nowhere'" in checked(response, "not_found")["detail"]


async def test_a_version_that_runs_code_needs_an_administrator(house: House) -> None:
    await house.registered()
    path, body = "/api/v1/models/fraud/versions", {"version": "2.0.0", "runtime": "python"}
    key = house.tenants.add("acme", "operate")
    headers = {"Authorization": f"Bearer {key}"}
    checked(await house.client.post(path, json=body, headers=headers), "forbidden")
    assert (await house.client.post(path, json=body)).status_code == 201


async def test_a_tenant_over_its_quota_waits_and_goes_on(house: House) -> None:
    house.tenants.quotas["acme"] = Quota(commands_per_s=1, requests_per_s=0)
    answers = [
        await house.client.post("/api/v1/models", json={"name": f"m{index}"}) for index in range(4)
    ]
    assert answers[0].status_code == 201
    checked(answers[-1], "rate_limited")
    assert int(answers[-1].headers["retry-after"]) >= 1
    infer = await house.client.post("/api/v1/endpoints/score/infer", json={"inputs": 1})
    checked(infer, "rate_limited")
    assert (await house.client.get("/api/v1/models")).status_code == 200
    house.tenants.quotas["acme"] = Quota()
    assert (await house.client.post("/api/v1/models", json={"name": "z"})).status_code == 201


def test_a_route_without_access_cannot_be_built() -> None:
    @get("/open")
    async def forgotten() -> None: ...

    with pytest.raises(Undeclared):
        route_table(Litestar([forgotten], openapi_config=None))
    declared = get("/closed", **needs("read"))(forgotten.fn)
    assert route_table(Litestar([declared], openapi_config=None)) == [
        Route(path="/closed", method="GET", access="read")
    ]

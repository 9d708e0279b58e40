"""Messages on the log that are no events, or not of that entity: what stops, and what goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import httpx
import nats
import pytest
import pytest_asyncio

from events import EntityId, Metadata
from events.catalogue.endpoints import AlertCleared
from events.catalogue.models import AliasMoved, ModelRegistered, VersionRegistered
from events.catalogue.tenants import KeyRevoked
from events.codec import encode
from events.event import Event
from events.log import APPEND_EVENTS_MAX
from handlers.following import SNAPSHOT_EVENTS
from tests.scenarios.test_bad_input import problem_in
from tests.system import System


@pytest_asyncio.fixture
async def http(system: System) -> AsyncIterator[httpx.AsyncClient]:
    """Endpoints `good` and `bad`, of models of their own."""
    client = system.client
    for model, endpoint in (("sound", "good"), ("poisoned", "bad")):
        await client.register_model(model)
        for version in ("1.0.0", "2.0.0"):
            config = {"answer": version}
            await client.register_version(model, version, runtime="echo", config=config)
        await client.create_endpoint(endpoint, model=model, version="1.0.0")
    headers = {"Authorization": f"Bearer {system.key}"}
    async with httpx.AsyncClient(base_url=system.url, headers=headers) as http:
        yield http


async def published(system: System, subject: str, message: bytes) -> int:
    """Its position, once this process's fold is past it."""
    client = await nats.connect(system.settings.nats_url)
    acknowledged = await client.jetstream().publish(subject, message)
    await client.close()
    await system.process.routing.reach(acknowledged.seq)
    return acknowledged.seq


async def stopped(http: httpx.AsyncClient) -> dict[str, Any]:
    """The part of `/readyz` that tells of the tables, once they stand still."""
    async with asyncio.timeout(10):
        while True:
            response = await http.get("/readyz")
            tables: dict[str, Any] = response.json()["parts"]["tables"]
            if tables["state"] == "down":
                assert response.status_code == 503
                return tables
            await asyncio.sleep(0.01)


async def check_the_rest_goes_on(system: System, http: httpx.AsyncClient) -> None:
    """Inference, commands and questions about what the message is not on; nothing is a 500."""
    for endpoint in ("good", "bad"):
        answer = await http.post(f"/api/v1/endpoints/{endpoint}/infer", json={"inputs": 1})
        assert answer.json()["outputs"]["answer"] == "1.0.0"
    swapped = await http.post("/api/v1/endpoints/good/swap?wait=true", json={"to": "2.0.0"})
    assert swapped.json()["state"] == "completed"
    answer = await http.post("/api/v1/endpoints/good/infer", json={"inputs": 1})
    assert answer.headers["switchback-version"] == "2.0.0"
    receipt = answer.headers["switchback-receipt"]
    explained = await http.post("/api/v1/explain", json={"receipt": receipt})
    assert explained.json()["valid"] is True
    rolled_back = await http.post("/api/v1/endpoints/good/rollback")
    assert rolled_back.json()["to"] == "1.0.0"
    was = await http.get(f"/api/v1/endpoints/good?at={swapped.json()['position']}")
    assert was.json()["active"] == "2.0.0"
    for path in ("/models", "/endpoints", "/endpoints/bad", "/models/poisoned", "/events", "/keys"):
        assert (await http.get("/api/v1" + path)).status_code == 200
    assert (await http.post("/api/v1/models", json={"name": "later"})).status_code == 201
    assert not system.process.failure.done()


async def refusals(http: httpx.AsyncClient, calls: Iterable[tuple[str, str, Any]]) -> set[str]:
    """The details of the problems that the calls are answered with."""
    details = set()
    for method, path, body in calls:
        response = await http.request(method, "/api/v1" + path, json=body)
        details.add(problem_in(response, "conflict")["detail"])
    return details


ON_ENDPOINT = [
    ("PUT", "/endpoints/bad", {"model": "sound", "version": "1.0.0"}),
    ("PUT", "/endpoints/bad/policy", {"split": {"2.0.0": 1}}),
    ("POST", "/endpoints/bad/swap", {"to": "2.0.0"}),
    ("POST", "/endpoints/bad/rollback", {}),
    ("POST", "/endpoints/bad/alerts", {"kind": "k", "severity": "critical"}),
    ("GET", "/endpoints/bad?at=999", None),
    ("GET", "/endpoints/bad/explain?key=k", None),
]
ON_MODEL = [
    ("POST", "/models", {"name": "poisoned"}),
    ("POST", "/models/poisoned/versions", {"version": "3.0.0", "runtime": "echo"}),
    (
        "POST",
        "/models/sound/versions",
        {"version": "3.0.0", "runtime": "echo", "parent": "poisoned@1.0.0"},
    ),
    ("PUT", "/models/poisoned/aliases/a", {"version": "1.0.0"}),
    ("POST", "/models/poisoned/versions/2.0.0/retire", None),
    ("PUT", "/endpoints/new", {"model": "poisoned", "version": "1.0.0"}),
]
ON_TENANT = [
    ("POST", "/keys", {"scopes": ["read"]}),
    ("PUT", "/quota", {"models_max": 9}),
    ("DELETE", "/keys/nobody", None),
]
ON_GHOST = [
    ("PUT", "/endpoints/ghost", {"model": "sound", "version": "1.0.0"}),
    ("POST", "/endpoints/ghost/rollback", {}),
    ("GET", "/endpoints/ghost?at=999", None),
    ("GET", "/endpoints/ghost/explain?key=k", None),
]


async def test_garbage_on_a_foreign_subject_stops_the_tables_and_nothing_else(
    system: System, http: httpx.AsyncClient
):
    position = await published(system, "evt.x.y.z", b"garbage")
    tables = await stopped(http)
    assert f"position {position} on evt.x.y.z" in tables["detail"]
    assert tables["position"] == position - 1
    await check_the_rest_goes_on(system, http)
    command = await http.put("/api/v1/endpoints/bad/policy", json={"split": {"2.0.0": 1}})
    assert command.status_code == 200
    assert (await http.get("/readyz")).json()["parts"]["routing"]["skipped"] == 1


@pytest.mark.parametrize(
    ("subject", "calls"),
    [("evt.default.endpoint.bad", ON_ENDPOINT), ("evt.default.model.poisoned", ON_MODEL)],
    ids=["endpoint", "model"],
)
@pytest.mark.parametrize("message", [b"\xff", b"{}", b'{"specversion": "1.0"}'])
async def test_garbage_on_an_entity_makes_its_commands_a_clear_refusal(
    system: System,
    http: httpx.AsyncClient,
    subject: str,
    calls: list[tuple[str, str, Any]],
    message: bytes,
):
    position = await published(system, subject, message)
    assert f"position {position} on {subject}" in (await stopped(http))["detail"]
    await check_the_rest_goes_on(system, http)
    for detail in await refusals(http, calls):
        assert detail.startswith(f"message {position} on {subject}: ")


def message(subject: str, event: Event) -> bytes:
    """A perfect CloudEvent, on the wrong entity or without what must have come before it."""
    return encode(EntityId.of_subject(subject), event, Metadata(), 0)


@pytest.mark.parametrize(
    ("subject", "event", "stops", "calls"),
    [
        ("evt.default.endpoint.bad", ModelRegistered(name="x"), True, ON_ENDPOINT),
        ("evt.default.model.poisoned", AlertCleared(alert_id="a"), True, ON_MODEL),
        ("evt.default.tenant.default", ModelRegistered(name="x"), True, ON_TENANT),
        ("evt.default.tenant.default", KeyRevoked(key_id="nobody"), False, ON_TENANT),
        ("evt.default.endpoint.ghost", AlertCleared(alert_id="a"), False, ON_GHOST),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Event) else str(value)[:30],
)
async def test_an_event_that_cannot_follow_breaks_only_its_own_history(
    system: System,
    http: httpx.AsyncClient,
    subject: str,
    event: Event,
    stops: bool,
    calls: list[tuple[str, str, Any]],
):
    position = await published(system, subject, message(subject, event))
    if stops:
        assert f"position {position} on {subject}" in (await stopped(http))["detail"]
    await check_the_rest_goes_on(system, http)
    for detail in await refusals(http, calls):
        assert detail.startswith(f"message {position} on {subject}: ")


async def test_a_number_that_no_snapshot_can_hold_does_not_stop_the_fold(
    system: System, http: httpx.AsyncClient
):
    """HTTP and NATS refuse such a version; another writer, or an older log, may hold one."""
    log = system.process.jetstream.events
    entity = EntityId("default", "model", "huge")
    huge = VersionRegistered(version="1.0.0", runtime="echo", config={"answer": 2**70})
    position = await log.append(entity, [ModelRegistered(name="huge"), huge], expected=0)
    for _ in range(SNAPSHOT_EVENTS // APPEND_EVENTS_MAX + 1):
        moves = [AliasMoved(alias="a", to_version="1.0.0")] * APPEND_EVENTS_MAX
        position = await log.append(entity, moves, expected=position, metadata=Metadata())
    await system.process.routing.reach(position)
    await check_the_rest_goes_on(system, http)
    shown = await http.get("/api/v1/models/huge/versions/1.0.0")
    assert shown.json()["config"] == {"answer": 2**70}

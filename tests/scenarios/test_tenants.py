"""Two tenants that give everything the same names: neither sees, changes or learns of the other.

Generated over the whole route table, so that a route which is added tomorrow is in it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from events.event import SYSTEM_TENANT
from handlers.http.access import SCOPES, Route
from projections.reader import READER_ROLE
from switchback.embedded import PostgresServer
from tests.http.test_access import GUARDED, OF_TENANT
from tests.scenarios.standing import beside, standing
from tests.scenarios.test_bad_input import problem_in
from tests.scenarios.test_contract import API
from tests.system import System

TENANTS = ("acme", "globex")
SEEN = {
    "model": "m",
    "version": "1.0.0",
    "alias": "a",
    "endpoint": "e",
    "node": "local",
    "entity": "endpoint/e",
}
"""The names of what both have; a rollout's id is made up, and each party's own."""
NOWHERE = dict.fromkeys([*SEEN, "rollout"], "nowhere")
QUERIES = {"explain": "?key=k", "stream": "?after=0", "compare": "?baseline=2.0.0"}


class Party(httpx.AsyncClient):
    """A client with one key of one tenant."""

    def __init__(self, system: System, tenant: str, key: str) -> None:
        headers = {"Authorization": f"Bearer {key}"}
        super().__init__(base_url=system.url + API, headers=headers)
        self.tenant = tenant
        self.names = {**SEEN, "rollout": "none-yet"}

    async def json(self, method: str, path: str, body: Any = None) -> Any:
        response = await self.request(method, path, json=body)
        assert response.is_success, response.text
        return response.json()


class Parties:
    """Both tenants, fully furnished, and an administrator of neither."""

    def __init__(self, system: System, admin: Party) -> None:
        self.system = system
        self.admin = admin
        self.of: dict[str, Party] = {}

    async def key(self, tenant: str, *scopes: str, **more: Any) -> dict[str, Any]:
        body = {"scopes": scopes, **more}
        issued: dict[str, Any] = await self.admin.json("POST", f"/tenants/{tenant}/keys", body)
        return issued

    async def party(self, tenant: str, *scopes: str) -> Party:
        return Party(self.system, tenant, (await self.key(tenant, *scopes))["key"])

    async def position(self) -> int:
        return await self.system.process.jetstream.events.position()


async def furnish(party: Party) -> None:
    secret = f"secret of {party.tenant}"
    labels = {"owner": secret}
    model = {"name": "m", "description": secret, "labels": labels}
    await party.json("POST", "/models", model)
    for version in ("1.0.0", "2.0.0"):
        body: dict[str, Any] = {"version": version, "runtime": "echo", "labels": labels}
        await party.json("POST", "/models/m/versions", body | {"config": {"answer": secret}})
    child = {"version": f"3.0.0+{party.tenant}", "runtime": "echo", "parent": "m@1.0.0"}
    await party.json("POST", "/models/m/versions", child)
    await party.json("PUT", "/models/m/aliases/a", {"version": "1.0.0"})
    await party.json("PUT", "/endpoints/e", {"model": "m", "version": "1.0.0"})
    alert = {"kind": "k", "severity": "warning", "detail": secret}
    await party.json("POST", "/endpoints/e/alerts", alert)
    rollout = await party.json("POST", "/endpoints/e/rollouts", {"to": "2.0.0"})
    ending = f"/endpoints/e/rollouts/{rollout['id']}/abort"
    await party.json("POST", ending, {"reason": secret})
    party.names["rollout"] = rollout["id"]


@pytest_asyncio.fixture(scope="module")
async def parties(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> AsyncIterator[Parties]:
    async with standing(tmp_path_factory.mktemp("tenants"), postgres_server) as system:
        parties = Parties(system, Party(system, "default", system.key))
        for tenant in TENANTS:
            await parties.admin.json("POST", "/tenants", {"name": tenant})
            quota = {"models_max": 1_000 + len(tenant)}
            await parties.admin.json("PUT", f"/tenants/{tenant}/quota", quota)
            party = await parties.party(tenant, "operate", "infer", "feedback", "read")
            await furnish(party)
            parties.of[tenant] = party
        yield parties
        for party in (parties.admin, *parties.of.values()):
            await party.aclose()


def path_of(route: Route, tenant: str, names: dict[str, str]) -> str:
    path = route.path.removeprefix(API).replace("{tenant}", tenant)
    for part, name in names.items():
        path = path.replace(f"{{{part}}}", name)
    return path.replace("{key}", "k") + QUERIES.get(route.path.rpartition("/")[2], "")


def by(routes: list[Route]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("route", routes, ids=lambda r: f"{r.method} {r.path}")


READS = [r for r in GUARDED if r.method == "GET" and not r.path.endswith("stream")]
OWN_READS = [r for r in READS if "{tenant}" not in r.path and r.access == "read"]
NAMED_READS = [r for r in READS if "{tenant}" in r.path]


@by(OWN_READS)
async def test_a_tenant_reads_only_its_own(parties: Parties, route: Route):
    for tenant, other in (TENANTS, TENANTS[::-1]):
        party = parties.of[tenant]
        answer = await party.get(path_of(route, tenant, party.names))
        assert answer.status_code == 200, answer.text
        assert other not in answer.text


@by(NAMED_READS)
async def test_naming_ones_own_tenant_reads_the_same_and_so_does_an_administrator(
    parties: Parties, route: Route
):
    for tenant in TENANTS:
        path = path_of(route, tenant, parties.of[tenant].names)
        seen = await parties.admin.get(path)
        assert seen.status_code == 200, seen.text
        if route.access == "read":
            assert (await parties.of[tenant].get(path)).json() == seen.json()
            unnamed = path.replace(f"/tenants/{tenant}", "")
            if unnamed:
                assert (await parties.of[tenant].get(unnamed)).json() == seen.json()


@by(OF_TENANT)
async def test_another_tenant_is_forbidden_whether_or_not_anything_is_there(
    parties: Parties, route: Route
):
    before = await parties.position()
    body = {"version": "1.0.0"} if route.method != "GET" else None
    answers = set()
    for tenant, names in (
        ("globex", parties.of["globex"].names),
        ("globex", NOWHERE),
        ("nowhere", parties.of["globex"].names),
        ("system", parties.of["globex"].names),
    ):
        path = path_of(route, tenant, names)
        answer = await parties.of["acme"].request(route.method, path, json=body)
        problem_in(answer, "forbidden")
        answers.add(answer.content)
    assert len(answers) == 1
    assert await parties.position() == before


@by(GUARDED)
async def test_a_scope_opens_its_routes_and_no_others(parties: Parties, route: Route):
    path = path_of(route, "acme", NOWHERE)
    if not route.path.startswith(API):
        path = parties.system.url + path
    for scope in SCOPES:
        if scope == "admin":
            continue
        async with await keyed(parties, scope) as party:
            before = await parties.position()
            if scope == route.access and route.path.endswith("stream"):
                continue
            answer = await party.request(route.method, path)
            if scope == route.access:
                assert answer.status_code in (200, 400, 404), answer.text
            else:
                problem_in(answer, "forbidden")
            assert await parties.position() == before


_keyed: dict[str, str] = {}


async def keyed(parties: Parties, scope: str) -> Party:
    """A client of acme with this one scope; the key is issued once."""
    if scope not in _keyed:
        _keyed[scope] = (await parties.key("acme", scope))["key"]
    return Party(parties.system, "acme", _keyed[scope])


@by(OF_TENANT)
async def test_a_tenant_that_does_not_exist_is_not_found_by_an_administrator(
    parties: Parties, route: Route
):
    before = await parties.position()
    answer = await parties.admin.request(route.method, path_of(route, "nowhere", NOWHERE))
    assert "nowhere" in problem_in(answer, "not_found")["detail"]
    assert await parties.position() == before


async def test_equal_names_answer_as_their_own(parties: Parties):
    async def asked(tenant: str, n: int) -> None:
        body = {"inputs": n, "key": f"user-{n}"}
        answer = await parties.of[tenant].json("POST", "/endpoints/e/infer", body)
        assert answer["outputs"] == {"answer": f"secret of {tenant}", "inputs": n}

    await asyncio.gather(*(asked(tenant, n) for n in range(100) for tenant in TENANTS))


async def test_a_receipt_is_nobody_elses_business(parties: Parties):
    acme, globex = parties.of["acme"], parties.of["globex"]
    answer = await acme.post("/endpoints/e/infer", json={"inputs": 1})
    receipt = {"receipt": answer.headers["switchback-receipt"]}
    assert (await acme.json("POST", "/explain", receipt))["valid"] is True
    problem = problem_in(await globex.post("/explain", json=receipt), "not_found")
    assert "acme" not in json.dumps(problem)
    seen = await parties.admin.json("POST", "/tenants/acme/explain", receipt)
    assert seen["valid"] is True


async def test_what_one_does_changes_nothing_of_the_other(parties: Parties):
    acme, globex = parties.of["acme"], parties.of["globex"]
    paths = ("/models", "/models/m/versions", "/endpoints", "/models/m/aliases/a", "/events")
    before = [await globex.json("GET", path) for path in paths]
    await acme.json("POST", "/models", {"name": "own"})
    await acme.json("POST", "/endpoints/e/swap?wait=true", {"to": "2.0.0"})
    await acme.json("POST", "/endpoints/e/rollback", {})
    await acme.json("PUT", "/models/m/aliases/a", {"version": "2.0.0"})
    await acme.json("POST", "/models/m/versions/3.0.0+acme/retire")
    assert [await globex.json("GET", path) for path in paths] == before
    for body in ({"to": "3.0.0+globex"}, {"to": "3.0.0+acme"}):
        problem_in(await acme.post("/endpoints/e/swap", json=body), "invalid")
    parent = {"version": "4.0.0", "runtime": "echo", "parent": "m@3.0.0+globex"}
    problem_in(await acme.post("/models/m/versions", json=parent), "invalid")


async def test_an_idempotency_key_is_ones_own(parties: Parties):
    headers = {"Idempotency-Key": "the same"}
    positions = set()
    for tenant in TENANTS:
        party = parties.of[tenant]
        made = await party.post("/models", json={"name": "twin"}, headers=headers)
        assert made.status_code == 201
        assert (await party.get("/models/twin")).json()["position"] == made.json()["position"]
        positions.add(made.json()["position"])
    assert len(positions) == 2


# ----------------------------------------------------------------------------------------- Streams


async def sources(party: Party, path: str, last: int) -> set[str]:
    """The sources of the events of a stream up to a position."""
    found = set()
    async with asyncio.timeout(10), party.stream("GET", path) as stream:
        assert stream.status_code == 200
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                event = json.loads(line.removeprefix("data: "))
                found.add(event["source"])
                if event["position"] >= last:
                    return found
    raise AssertionError("the stream ended")


async def test_a_stream_tells_of_its_own_tenant_while_both_are_busy(parties: Parties):
    async def busy(party: Party) -> int:
        made = [
            await party.json("PUT", "/models/m/aliases/b", {"version": f"{n % 2 + 1}.0.0"})
            for n in range(20)
        ]
        return int(made[-1]["position"])

    lasts = await asyncio.gather(*(busy(party) for party in parties.of.values()))
    for party, last in zip(parties.of.values(), lasts, strict=True):
        own = {f"/switchback/{party.tenant}"}
        assert await sources(party, "/events/stream?after=0", last) == own
        assert await sources(party, "/events/stream?after=0&entity=model/m", last) == own
        named = f"/tenants/{party.tenant}/events/stream?after=0"
        assert await sources(party, named, last) == own
        assert await sources(parties.admin, named, last) == own


async def test_an_entity_filter_does_not_reach_across(parties: Parties):
    for entity in ("tenant/globex", "node/local"):
        page = await parties.of["acme"].json("GET", f"/events?entity={entity}")
        assert page["items"] == []


# -------------------------------------------------------------------------------------------- Keys


async def test_a_revoked_key_stops_at_once_on_every_gateway(parties: Parties):
    async with beside(parties.system, gateway_id="second") as other:
        issued = await parties.key("acme", "read")
        here = Party(parties.system, "acme", issued["key"])
        there = Party(other, "acme", issued["key"])
        for party in (here, there):
            assert (await party.get("/models")).status_code == 200
        await parties.admin.json("DELETE", f"/tenants/acme/keys/{issued['id']}")
        for party in (here, there):
            problem_in(await party.get("/models"), "unauthenticated")
            await party.aclose()


async def test_a_stream_ends_with_its_key(parties: Parties):
    issued = await parties.key("acme", "read")
    async with (
        Party(parties.system, "acme", issued["key"]) as party,
        party.stream("GET", "/events/stream?after=0") as stream,
        asyncio.timeout(10),
    ):
        lines = stream.aiter_lines()
        assert await anext(lines) == ": still here"
        await parties.admin.json("DELETE", f"/tenants/acme/keys/{issued['id']}")
        await parties.of["acme"].json("POST", "/models", {"name": "unseen"})
        rest = [line async for line in lines]
    assert not [line for line in rest if "unseen" in line]


async def test_an_expired_key_stops_at_once(parties: Parties):
    issued = await parties.key("acme", "read", expires_s=0.3)
    async with Party(parties.system, "acme", issued["key"]) as party:
        assert (await party.get("/models")).status_code == 200
        async with asyncio.timeout(10):
            while (answer := await party.get("/models")).status_code == 200:
                pass
        problem_in(answer, "unauthenticated")
        problem_in(await party.get("/models"), "unauthenticated")


async def test_a_key_manages_no_keys_without_the_scope_for_it(parties: Parties):
    acme = parties.of["acme"]
    for method, path, body in (
        ("POST", "/keys", {"scopes": ["admin"]}),
        ("POST", "/tenants/acme/keys", {"scopes": ["read"]}),
        ("GET", "/keys", None),
        ("POST", "/tenants", {"name": "third"}),
        ("PUT", "/quota", {}),
        ("POST", "/nodes/local/drain", {}),
    ):
        problem_in(await acme.request(method, path, json=body), "forbidden")


# -------------------------------------------------------------------------------- Beneath the walls


async def test_row_level_security_stands_under_it(parties: Parties):
    connection = await asyncpg.connect(parties.system.settings.postgres_dsn)
    try:
        views = [
            row["table_name"]
            for row in await connection.fetch(
                "SELECT DISTINCT table_name FROM information_schema.columns"
                " WHERE table_schema = 'switchback' AND column_name = 'tenant'"
            )
        ]
        assert {"models", "versions", "endpoints", "aliases", "events", "tenants"} <= set(views)
        await connection.execute(f"SET ROLE {READER_ROLE}")
        for tenant in TENANTS:
            await connection.execute("SELECT set_config('switchback.tenant', $1, false)", tenant)
            for view in views:
                rows = await connection.fetch(f"SELECT DISTINCT tenant FROM switchback.{view}")
                own = {SYSTEM_TENANT} if view == "nodes" else {tenant}
                assert {row["tenant"] for row in rows} <= own, view
            models = await connection.fetch("SELECT name FROM switchback.models")
            assert "m" in {row["name"] for row in models}
        await connection.execute("SELECT set_config('switchback.tenant', '', false)")
        for view in set(views) - {"nodes"}:
            assert await connection.fetch(f"SELECT 1 FROM switchback.{view}") == [], view
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM switchback.models")
    finally:
        await connection.close()


async def test_cache_entries_are_under_their_tenants_name(parties: Parties):
    for party in parties.of.values():
        await party.json("GET", "/models/m")
        await party.json("GET", "/endpoints/e")
    async with Redis.from_url(parties.system.settings.redis_url) as client:
        found = 0
        async for key in client.scan_iter("sb:*"):
            if await client.type(key) != b"string":
                continue
            value = await client.get(key)
            for tenant in TENANTS:
                if f"secret of {tenant}".encode() in value:
                    found += 1
                    assert tenant.encode() in key
        assert found >= 2

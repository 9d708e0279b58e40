"""What the HTTP layer reads: shapes, pages, minimum positions, and walls between tenants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from events import EntityId
from events.catalogue.models import ModelRegistered, VersionRegistered
from events.codec import cloud_event
from events.memory import MemoryLog
from projections import DatabaseUnavailable, Page, Pool, Queries, StalePosition
from projections.builds import install
from projections.cache import Cache
from projections.progress import Progress
from projections.reader import Query, Reader
from projections.results import Lineage, Residency, Resident
from projections.tables import PROJECTIONS
from tests.projections.history import CHAT, FRAUD, Writer, life, write_life
from tests.projections.project import WAIT_SECONDS, events_of, project, projecting, reached


@pytest.fixture
async def log(pool: Pool) -> MemoryLog:
    log = await life()
    await project(pool, await events_of(log, await log.position()))
    return log


async def test_a_model_comes_with_its_aliases(log: MemoryLog, queries: Queries) -> None:
    model = await queries.models.get("acme", "fraud")
    assert model is not None
    assert (model.name, model.description, model.labels) == ("fraud", "cards", {"a": "b"})
    assert model.aliases == {"live": "2.0.0"}
    assert await queries.models.get("acme", "none") is None


async def test_a_version_comes_with_its_state_and_its_residency_per_node(
    log: MemoryLog, queries: Queries
) -> None:
    version = await queries.models.version("acme", "fraud", "1.0.0")
    assert version is not None
    assert version.state == "registered"
    assert version.config == {"answer": "one", "nested": {"b": [1, 2.5, None], "a": True}}
    assert version.artifact is not None
    assert version.artifact.uri == "file:///models/fraud"
    assert version.residency == [
        Residency(
            node="n1", state="resident", memory_bytes=100, load_ms=12.5, reason=None, detail=None
        )
    ]
    retired = await queries.models.version("acme", "fraud", "3.0.0")
    assert retired is not None
    assert (retired.state, retired.parent, retired.residency) == ("retired", "fraud@2.0.0", [])
    assert await queries.models.version("acme", "fraud", "9.9.9") is None


async def test_versions_are_listed_as_they_were_registered(
    log: MemoryLog, queries: Queries
) -> None:
    first = await queries.models.versions("acme", "fraud", limit=3)
    assert [version.version for version in first.items] == ["1.0.0", "2.0.0", "3.0.0"]
    assert first.next == "3.0.0"
    rest = await queries.models.versions("acme", "fraud", after=first.next, limit=3)
    assert [version.version for version in rest.items] == ["2.0.1"]
    assert rest.next is None


async def test_lineage_is_nearest_first_in_both_directions(
    log: MemoryLog, queries: Queries
) -> None:
    assert await queries.models.lineage("acme", "fraud", "3.0.0") == Lineage(
        ancestors=["fraud@2.0.0", "fraud@1.0.0"], descendants=[]
    )
    assert await queries.models.lineage("acme", "fraud", "1.0.0") == Lineage(
        ancestors=[], descendants=["fraud@2.0.0", "fraud@2.0.1", "fraud@3.0.0"]
    )
    assert await queries.models.lineage("acme", "fraud", "9.9.9") is None
    assert await queries.models.lineage("beta", "fraud", "1.0.0") == Lineage(
        ancestors=[], descendants=[]
    )


async def test_lineage_ends_even_if_the_edges_form_a_ring(pool: Pool, queries: Queries) -> None:
    log = MemoryLog()
    await Writer(log).append(
        FRAUD,
        ModelRegistered(name="fraud"),
        VersionRegistered(version="1.0.0", runtime="echo", parent="fraud@2.0.0"),
        VersionRegistered(version="2.0.0", runtime="echo", parent="fraud@1.0.0"),
    )
    await project(pool, await events_of(log, 3))
    lineage = await queries.models.lineage("acme", "fraud", "1.0.0")
    assert lineage is not None
    assert lineage.ancestors[0] == lineage.descendants[0] == "fraud@2.0.0"


async def test_aliases_are_read_with_their_history(log: MemoryLog, queries: Queries) -> None:
    alias = await queries.models.alias("acme", "fraud", "live")
    assert alias is not None
    assert alias.version == "2.0.0"
    page = await queries.models.alias_history("acme", "fraud", "live", limit=1)
    (move,) = page.items
    assert (move.who, move.from_, move.to) == ("key:k1", None, "1.0.0")
    assert page.next == str(move.position)
    rest = await queries.models.alias_history("acme", "fraud", "live", after=int(page.next))
    assert [(m.from_, m.to) for m in rest.items] == [("1.0.0", "2.0.0")]
    shown = msgspec.json.decode(msgspec.json.encode(rest.items[0]))
    assert {"who", "when", "from", "to"} <= shown.keys()
    assert await queries.models.alias("acme", "fraud", "none") is None


async def test_an_endpoint_has_the_shape_of_the_contract(log: MemoryLog, queries: Queries) -> None:
    endpoint = await queries.endpoints.get("acme", "chat")
    assert endpoint is not None
    shown = msgspec.json.decode(msgspec.json.encode(endpoint))
    contract = {"model", "policy", "active", "previous", "rollout", "swap", "alerts", "position"}
    assert contract <= shown.keys()
    assert shown["policy"] == {"split": {"1.0.0": 90.0, "2.0.0": 10.0}, "sticky": False}
    assert {"id", "from", "to", "state", "duration_ms", "position"} <= shown["swap"].keys()
    assert shown["rollout"] is None
    assert [alert["kind"] for alert in shown["alerts"]] == ["latency"]
    last = [recorded async for recorded in log.read(CHAT)][-1].position
    assert shown["position"] == last


async def test_nodes_show_budget_use_and_the_tenants_own_versions(
    log: MemoryLog, queries: Queries
) -> None:
    acme = await queries.nodes.get("acme", "n1")
    beta = await queries.nodes.get("beta", "n1")
    system = await queries.nodes.get("system", "n1")
    assert acme is not None
    assert beta is not None
    assert system is not None
    assert (acme.state, acme.memory_budget_bytes, acme.memory_used_bytes) == ("joined", 1_000, 130)
    assert acme.runtimes == ["echo", "python"]
    assert acme.resident == [
        Resident(tenant="acme", model="fraud", version="1.0.0", memory_bytes=100)
    ]
    assert [item.tenant for item in beta.resident] == ["beta"]
    assert [item.tenant for item in system.resident] == ["acme", "beta"]
    page = await queries.nodes.list("acme")
    assert [(node.id, node.state) for node in page.items] == [
        ("n1", "joined"),
        ("n2", "lost"),
        ("n3", "left"),
    ]


async def test_events_are_the_cloudevents_of_the_log(log: MemoryLog, queries: Queries) -> None:
    page = await queries.events.list("acme", limit=1_000)
    history = await events_of(log, await log.position())
    expected = [cloud_event(r) for r in history if r.entity.tenant == "acme"]
    assert [decoded(event) for event in page.items] == [decoded(event) for event in expected]


async def test_events_of_one_entity_are_paged_by_position(log: MemoryLog, queries: Queries) -> None:
    found: list[int | None] = []
    after: str | None = "0"
    while after is not None:
        page = await queries.events.list("acme", after=int(after), limit=3, entity=CHAT)
        assert all(event.subject == "endpoint/chat" for event in page.items)
        found += [event.position for event in page.items]
        after = page.next
    assert found == [recorded.position async for recorded in log.read(CHAT)]


async def test_tenants_and_keys_are_shown_without_the_secret(
    log: MemoryLog, queries: Queries
) -> None:
    tenant = await queries.tenants.get("acme")
    assert tenant is not None
    assert (tenant.name, tenant.quota.requests_per_s) == ("Acme", 50)
    page = await queries.tenants.keys("acme")
    (key,) = page.items
    assert (key.id, key.scopes) == ("k1", ["admin", "read"])
    assert key.revoked_at is not None
    assert b"cdcd" not in msgspec.json.encode(key)


async def test_lists_come_in_pages(pool: Pool, queries: Queries) -> None:
    log = MemoryLog()
    for index in range(7):
        name = f"m{index}"
        await log.append(EntityId("acme", "model", name), [ModelRegistered(name=name)], expected=0)
    await project(pool, await events_of(log, 7))
    names: list[str] = []
    page = await queries.models.list("acme", limit=3)
    names += [model.name for model in page.items]
    while page.next is not None:
        page = await queries.models.list("acme", after=page.next, limit=3)
        names += [model.name for model in page.items]
    assert names == [f"m{index}" for index in range(7)]


async def test_a_read_waits_for_the_position_it_needs(
    pool: Pool, progress: Progress, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.reader.MIN_POSITION_WAIT_SECONDS", WAIT_SECONDS)
    log = MemoryLog()
    await install(pool, PROJECTIONS)
    async with projecting(log, pool, progress):
        last = await write_life(log)
        model = await queries.models.get("acme", "fraud", min_position=last)
    assert model is not None
    assert model.aliases == {"live": "2.0.0"}


async def test_a_read_of_a_position_that_does_not_come_says_how_far_it_is(
    log: MemoryLog, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.reader.MIN_POSITION_WAIT_SECONDS", 0.05)
    last = await log.position()
    with pytest.raises(StalePosition) as stale:
        await queries.models.get("acme", "fraud", min_position=last + 1)
    assert (stale.value.wanted, stale.value.actual) == (last + 1, last)


async def test_what_a_process_believed_does_not_matter_when_tables_went_back(
    log: MemoryLog, progress: Progress, queries: Queries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projections.reader.MIN_POSITION_WAIT_SECONDS", 0.05)
    last = await log.position()
    progress.applied({projection.name: last + 10 for projection in PROJECTIONS})
    with pytest.raises(StalePosition):
        await queries.endpoints.get("acme", "chat", min_position=last + 10)


async def test_reads_before_anything_is_installed_are_unavailable(queries: Queries) -> None:
    with pytest.raises(DatabaseUnavailable, match="not installed"):
        await queries.models.list("acme")


async def test_the_cache_answers_what_the_tables_answer(
    pool: Pool, progress: Progress, reader: Reader, queries: Queries, cache: Cache
) -> None:
    log = MemoryLog()
    cached = Queries(reader, cache=cache)
    async with projecting(log, pool, progress, cache=cache):
        last = await write_life(log)
        await reached(progress, last)
        for tenant in ("acme", "beta"):
            model = await queries.models.get(tenant, "fraud")
            models = partial(cached.models.get, tenant, "fraud", min_position=last)
            assert all(answer == model for answer in await _until_a_hit(cache, models))
            endpoint = await queries.endpoints.get(tenant, "chat")
            endpoints = partial(cached.endpoints.get, tenant, "chat", min_position=last)
            assert all(answer == endpoint for answer in await _until_a_hit(cache, endpoints))


async def _until_a_hit(cache: Cache, read: Callable[[], Awaitable[Any]]) -> list[Any]:
    """All answers up to the first of Redis, which learns of a commit a moment after it."""
    hits = cache.stats.hits
    answers: list[Any] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while cache.stats.hits == hits:
            answers.append(await read())
    return answers


Read = Callable[[Queries, str], Awaitable[Any]]
EVERY_READ: Sequence[Read] = (
    lambda queries, tenant: queries.models.get(tenant, "fraud"),
    lambda queries, tenant: queries.models.list(tenant),
    lambda queries, tenant: queries.models.version(tenant, "fraud", "1.0.0"),
    lambda queries, tenant: queries.models.versions(tenant, "fraud"),
    lambda queries, tenant: queries.models.lineage(tenant, "fraud", "1.0.0"),
    lambda queries, tenant: queries.models.alias(tenant, "fraud", "live"),
    lambda queries, tenant: queries.models.alias_history(tenant, "fraud", "live"),
    lambda queries, tenant: queries.endpoints.get(tenant, "chat"),
    lambda queries, tenant: queries.endpoints.list(tenant),
    lambda queries, tenant: queries.rollouts.get(tenant, "chat", "r1"),
    lambda queries, tenant: queries.rollouts.list(tenant, "chat"),
    lambda queries, tenant: queries.events.list(tenant),
    lambda queries, tenant: queries.tenants.get(tenant),
    lambda queries, tenant: queries.tenants.keys(tenant),
)


@pytest.mark.parametrize("read", EVERY_READ)
async def test_no_read_shows_a_stranger_anything(
    log: MemoryLog, queries: Queries, read: Read
) -> None:
    for answer in [await read(queries, name) for name in ("gamma", "system' OR '1'='1", "")]:
        assert answer is None or answer == Page(items=[], next=None)


class Owner(msgspec.Struct):
    tenant: str


@pytest_asyncio.fixture
async def tables(log: MemoryLog, pool: Pool) -> AsyncIterator[list[str]]:
    yield [table.name for projection in PROJECTIONS for table in projection.tables]


async def test_a_query_that_forgets_its_tenant_still_sees_only_its_own(
    tables: list[str], reader: Reader
) -> None:
    for table in tables:
        sql = f"SELECT tenant FROM switchback.{table} WHERE $1::text IS NOT NULL"
        query = Query(Owner, reads=["models"], sql=sql)
        for tenant in ("acme", "beta", "gamma"):
            owners = {row.tenant for row in await reader.rows(query, tenant)}
            allowed = {tenant, "system"} if table == "nodes" else {tenant}
            assert owners <= allowed, table


async def test_control_without_row_level_security_that_query_sees_everyone(
    pool: Pool, tables: list[str], reader: Reader
) -> None:
    await pool.execute("ALTER TABLE sb_models_v1.models DISABLE ROW LEVEL SECURITY")
    query = Query(
        Owner, reads=["models"], sql="SELECT tenant FROM switchback.models WHERE $1 <> ''"
    )
    assert {row.tenant for row in await reader.rows(query, "acme")} == {"acme", "beta"}


async def test_a_session_without_a_tenant_sees_nothing_of_anyone(
    tables: list[str], reader_pool: Pool
) -> None:
    for table in tables:
        rows = await reader_pool.fetch(f"SELECT tenant FROM switchback.{table}")
        assert {row["tenant"] for row in rows} <= ({"system"} if table == "nodes" else set())


async def test_readers_cannot_write_even_if_they_try(tables: list[str], reader_pool: Pool) -> None:
    for table in tables:
        with pytest.raises(Exception, match=r"permission denied|read-only"):
            await reader_pool.execute(f"DELETE FROM switchback.{table}")


async def test_many_tenants_share_few_connections_without_mixing(
    log: MemoryLog, reader: Reader
) -> None:
    query = Query(
        Owner, reads=["models"], sql="SELECT tenant FROM switchback.models WHERE $1 <> ''"
    )
    tenants = ["acme", "beta", "gamma"] * 40
    answers = await asyncio.gather(*(reader.rows(query, tenant) for tenant in tenants))
    for tenant, answer in zip(tenants, answers, strict=True):
        assert [row.tenant for row in answer] == ([] if tenant == "gamma" else [tenant])


def decoded(event: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(event))

"""Given a log, then rows."""

from __future__ import annotations

import pytest

from events import EntityId
from events.catalogue.endpoints import EndpointCreated, PolicySet
from events.catalogue.models import ModelRegistered, VersionRegistered
from events.catalogue.nodes import NodeJoined
from events.catalogue.tenants import KeyRevoked, Quota, QuotaSet
from events.memory import MemoryLog
from projections import Pool
from projections.tables import PROJECTIONS
from tests.projections.history import CHAT, FRAUD, N1, V1, Writer, all_to, life, loaded
from tests.projections.project import contents, events_of, project


async def rows(pool: Pool, sql: str, *arguments: object) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in await pool.fetch(sql, *arguments)]


@pytest.fixture
async def lived(pool: Pool) -> Pool:
    log = await life()
    await project(pool, await events_of(log, await log.position()))
    return pool


def test_every_table_has_the_tenant_first_in_its_primary_key_and_a_position() -> None:
    for projection in PROJECTIONS:
        for table in projection.tables:
            assert table.key[0] == "tenant"
            assert "position" in table.column_names


async def test_tenants_keep_name_quota_and_keys_with_their_revocation(lived: Pool) -> None:
    assert await rows(
        lived, "SELECT tenant, name, quota->>'requests_per_s' FROM switchback.tenants ORDER BY 1"
    ) == [
        ("acme", "Acme", "50"),
        ("beta", "Beta", None),
    ]
    found = await rows(
        lived,
        "SELECT tenant, key_id, scopes, expires_at, revoked_at > issued_at FROM switchback.keys",
    )
    assert found == [("acme", "k1", '["admin", "read"]', None, True)]


async def test_models_know_where_their_aliases_point(lived: Pool) -> None:
    assert await rows(
        lived,
        "SELECT tenant, name, description, labels, aliases FROM switchback.models ORDER BY tenant",
    ) == [
        ("acme", "fraud", "cards", '{"a": "b"}', '{"live": "2.0.0"}'),
        ("beta", "fraud", "", "{}", "{}"),
    ]


async def test_versions_keep_what_was_registered_and_whether_it_is_retired(lived: Pool) -> None:
    found = await rows(
        lived,
        "SELECT version, runtime, parent, memory_bytes, state, config->>'answer',"
        " artifact->>'sha256', metrics->>'accuracy'"
        " FROM switchback.versions WHERE tenant = 'acme' ORDER BY registered_position",
    )
    assert found == [
        ("1.0.0", "echo", None, 1_000, "registered", "one", "ab" * 32, "0.91"),
        ("2.0.0", "echo", "fraud@1.0.0", None, "registered", None, None, None),
        ("3.0.0", "echo", "fraud@2.0.0", None, "retired", None, None, None),
        ("2.0.1", "echo", "fraud@1.0.0", None, "registered", None, None, None),
    ]


async def test_lineage_has_an_edge_for_each_parent(lived: Pool) -> None:
    assert await rows(
        lived, "SELECT tenant, child, parent FROM switchback.lineage ORDER BY child"
    ) == [
        ("acme", "fraud@2.0.0", "fraud@1.0.0"),
        ("acme", "fraud@2.0.1", "fraud@1.0.0"),
        ("acme", "fraud@3.0.0", "fraud@2.0.0"),
    ]


async def test_aliases_keep_every_move_with_who_when_from_and_to(lived: Pool) -> None:
    assert await rows(lived, "SELECT model, alias, version FROM switchback.aliases") == [
        ("fraud", "live", "2.0.0")
    ]
    assert await rows(
        lived,
        "SELECT who, from_version, to_version FROM switchback.alias_history ORDER BY position",
    ) == [("key:k1", None, "1.0.0"), ("key:k1", "1.0.0", "2.0.0")]


async def test_an_endpoint_shows_policy_versions_swap_and_open_alerts(lived: Pool) -> None:
    found = await rows(
        lived,
        "SELECT policy->'split', active, previous, swap->>'id', swap->>'state',"
        " (swap->>'duration_ms')::float, jsonb_path_query_array(alerts, '$[*].id')::text"
        " FROM switchback.endpoints WHERE tenant = 'acme'",
    )
    assert found == [
        ('{"1.0.0": 90.0, "2.0.0": 10.0}', "1.0.0", None, "s2", "completed", 1_000.0, '["a2"]')
    ]


async def test_an_endpoint_remembers_the_version_before_until_it_is_rolled_back(pool: Pool) -> None:
    log = await life()
    history = await events_of(log, await log.position())
    swapped = next(
        r.position for r in history if r.event.type == "switchback.endpoint.swap_completed.v1"
    )
    await project(pool, [r for r in history if r.position <= swapped])
    sql = "SELECT active, previous FROM switchback.endpoints WHERE tenant = 'acme'"
    assert await rows(pool, sql) == [("2.0.0", "1.0.0")]
    await project(pool, history)
    assert await rows(pool, sql) == [("1.0.0", None)]


async def test_nodes_show_state_and_the_memory_in_use(lived: Pool) -> None:
    assert await rows(
        lived,
        "SELECT node, state, memory_budget_bytes, memory_used_bytes FROM switchback.nodes"
        " ORDER BY node",
    ) == [("n1", "joined", 1_000, 130), ("n2", "lost", 500, 0), ("n3", "left", 10, 0)]


async def test_nothing_is_resident_on_a_lost_node(lived: Pool) -> None:
    assert await rows(
        lived,
        "SELECT tenant, model, version, node, state FROM switchback.residency ORDER BY tenant",
    ) == [
        ("acme", "fraud", "1.0.0", "n1", "resident"),
        ("beta", "fraud", "1.0.0", "n1", "resident"),
    ]


async def test_a_node_that_joins_again_begins_empty(pool: Pool) -> None:
    log = MemoryLog()
    writer = Writer(log)
    joined = NodeJoined(memory_budget_bytes=1_000, runtimes=("echo",))
    await writer.append(N1, joined, loaded(V1, 400))
    await writer.append(N1, joined)
    await project(pool, await events_of(log, 3))
    assert await rows(pool, "SELECT memory_used_bytes FROM switchback.nodes") == [(0,)]
    assert await rows(pool, "SELECT * FROM switchback.residency") == []


async def test_the_audit_has_every_event_with_its_data(lived: Pool) -> None:
    log = await life()
    history = await events_of(log, await log.position())
    found = await rows(
        lived,
        "SELECT position, id, tenant, aggregate, entity, type, time, actor, correlation_id"
        " FROM switchback.events ORDER BY position",
    )
    assert found == [
        (
            r.position,
            r.id,
            r.entity.tenant,
            r.entity.aggregate,
            r.entity.id,
            r.event.type,
            r.time,
            r.actor,
            r.correlation_id,
        )
        for r in history
    ]
    (data,) = await rows(
        lived, "SELECT data->'config'->'nested' FROM switchback.events WHERE data ? 'config'"
    )
    assert data == ('{"a": true, "b": [1, 2.5, null]}',)


async def test_the_character_postgres_cannot_hold_is_replaced_not_refused(pool: Pool) -> None:
    log = MemoryLog()
    writer = Writer(log)
    hostile = {"\0key": "a\0b", "escaped": "\\u0000", "both": "\\\0"}
    await writer.append(
        FRAUD,
        ModelRegistered(name="fraud", description="nul \0 here", labels=hostile),
        VersionRegistered(version="1.0.0", runtime="echo", config={"text": "\0"}),
    )
    await project(pool, await events_of(log, 2))
    ((description, labels, text),) = await rows(
        pool,
        "SELECT m.description, m.labels->>'escaped', v.config->>'text'"
        " FROM switchback.models m JOIN switchback.versions v ON v.model = m.name",
    )
    assert (description, labels, text) == ("nul \ufffd here", "\\u0000", "\ufffd")
    assert await rows(pool, "SELECT labels->>'both' FROM switchback.models") == [("\\\ufffd",)]


async def test_events_of_things_that_never_began_leave_the_tables_empty(pool: Pool) -> None:
    log = MemoryLog()
    writer = Writer(log)
    await writer.append(EntityId("acme", "tenant", "acme"), QuotaSet(quota=Quota()))
    await writer.append(EntityId("acme", "tenant", "acme"), KeyRevoked(key_id="none"))
    await project(pool, await events_of(log, 2))
    after = await contents(pool)
    assert after["tenants"] == after["keys"] == []
    assert after["checkpoint"] == [(name, 2) for name in sorted(p.name for p in PROJECTIONS)]


async def test_a_policy_that_gives_all_traffic_to_one_version_makes_it_active(pool: Pool) -> None:
    log = MemoryLog()
    writer = Writer(log)
    await writer.append(
        CHAT, EndpointCreated(model="fraud", version="1.0.0", policy=all_to("1.0.0"))
    )
    await writer.append(CHAT, PolicySet(policy=all_to("2.0.0")))
    await project(pool, await events_of(log, 2))
    assert await rows(pool, "SELECT active, previous FROM switchback.endpoints") == [
        ("2.0.0", "1.0.0")
    ]

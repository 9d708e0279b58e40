"""`/nodes/{n}/batching`: whose versions are told to whom, and in which words."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from engine.batching import Statistics
from events.catalogue.nodes import VersionRef
from handlers import directory
from handlers.batching import BatchingReply, VersionBatching
from tests.batching.fakes import World
from tests.http.conftest import House
from tests.http.test_problems import checked


def statistics() -> Statistics:
    """Of three requests of four tokens, two at a time, a second for each step."""
    world = World(batch_max=2)
    for index in range(3):
        world.submit([index + 1], 4)
    world.run()
    return world.scheduler.statistics()


def reply(*tenants: str, unanswered: tuple[str, ...] = ()) -> BatchingReply:
    return BatchingReply(
        versions=tuple(
            VersionBatching(version=VersionRef(tenant, "chat", "1.0.0"), statistics=statistics())
            for tenant in tenants
        ),
        unanswered=tuple(VersionRef(tenant, "chat", "2.0.0") for tenant in unanswered),
    )


async def answer(house: House, path: str = "/api/v1/nodes/n1/batching") -> Any:
    response = await house.client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_version_tells_all_its_statistics(house: House) -> None:
    house.batchings.nodes["n1"] = reply("acme")
    answered = await answer(house)
    (item,) = answered["items"]
    assert (answered["node"], item["model"], item["version"]) == ("n1", "chat", "1.0.0")
    assert set(Statistics.__struct_fields__) < set(item)
    told = {
        "num_requests_running": 0,
        "num_requests_waiting": 0,
        "batch_size_max": 2,
        "batch_max": 2,
        "batch_utilisation": 12 / (8 * 2),
        "requests_ended": {"length": 3},
        "requests_per_s": 3 / 8,
        "tokens_per_s": 12 / 8,
        "executor_failures": 0,
    }
    assert {name: item[name] for name in told} == told
    e2e = item["e2e_request_latency"]
    assert (e2e["count"], e2e["sum_s"], e2e["p50_s"]) == (3, 16, pytest.approx(4, rel=0.01))
    for name in ("time_to_first_token", "time_per_output_token", "request_queue_time"):
        assert {"p50_s", "p95_s", "p99_s"} < set(item[name])


async def test_the_answer_fits_the_schema_that_describes_it(house: House) -> None:
    house.batchings.nodes["n1"] = reply("acme", unanswered=("acme",))
    document = (await house.client.get("/openapi.json")).json()
    described = document["paths"]["/api/v1/nodes/{node}/batching"]["get"]["responses"]["200"]
    schema = described["content"]["application/json"]["schema"]
    jsonschema.validate(await answer(house), {**schema, "components": document["components"]})


async def test_a_tenant_sees_its_own_versions_and_an_administrator_those_of_the_tenant_named(
    house: House,
) -> None:
    house.tenants.add("globex", "read")
    house.batchings.nodes["n1"] = reply("acme", "globex", unanswered=("acme", "globex"))

    async def seen(tenant: str) -> list[list[str]]:
        answered = await answer(house, f"/api/v1{tenant}/nodes/n1/batching")
        return [[each["tenant"] for each in answered[name]] for name in ("items", "unanswered")]

    assert await seen("") == [["acme"], ["acme"]]
    assert await seen("/tenants/globex") == [["globex"], ["globex"]]
    assert await seen("/tenants/system") == [["acme", "globex"]] * 2


async def test_a_node_that_never_joined_is_not_found_and_a_silent_one_unavailable(
    house: House,
) -> None:
    house.batchings.nodes["n2"] = None
    missing = await house.client.get("/api/v1/nodes/n1/batching")
    assert "n1" in checked(missing, "not_found")["detail"]
    silent = await house.client.get("/api/v1/nodes/n2/batching")
    assert "n2" in checked(silent, "unavailable")["detail"]
    assert int(silent.headers["retry-after"]) >= 1
    checked(await house.client.get("/api/v1/nodes/a.b/batching"), "invalid")


async def test_a_read_waits_for_the_position_that_the_client_has_seen(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "REACH_SECONDS", 0.02)
    house.batchings.nodes["n1"] = reply("acme")
    response = await house.client.get(
        "/api/v1/nodes/n1/batching", headers={"Switchback-Min-Position": "1000"}
    )
    checked(response, "stale")


async def test_schedulers_are_asked_before_metrics_are_told(house: House) -> None:
    before = house.batchings.scrapes
    assert (await house.client.get("/metrics")).status_code == 200
    assert house.batchings.scrapes == before + 1

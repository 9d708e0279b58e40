"""Reads: pages, least positions, moments of the log; health, metrics and inference."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from handlers.http.inference import INFERENCE_HEADERS
from handlers.http.views import Part
from tests.http.conftest import House
from tests.http.test_problems import checked

READS = [
    "/models",
    "/models/fraud",
    "/models/fraud/versions",
    "/models/fraud/versions/1.0.0",
    "/models/fraud/versions/1.0.0/lineage",
    "/endpoints",
    "/endpoints/score",
    "/endpoints?at=1",
    "/endpoints/score?at=1",
    "/endpoints/score/explain?key=k",
    "/endpoints/score/rollouts",
    "/endpoints/score/compare",
    "/endpoints/score/shadow",
    "/nodes",
    "/events",
    "/tenants/acme",
    "/keys",
]


@pytest.mark.parametrize("path", READS)
async def test_a_read_reflects_the_least_position_or_is_stale(house: House, path: str) -> None:
    await house.registered()
    position = await house.log.position()
    for wanted, status in ((position, 200), (position + 1, 412)):
        response = await house.client.get(
            f"/api/v1{path}", headers={"Switchback-Min-Position": str(wanted)}
        )
        assert response.status_code == status, response.text
    checked(response, "stale")


@pytest.mark.parametrize(
    "path",
    [
        "/models/none",
        "/models/none/versions",
        "/models/fraud/versions/9.9.9",
        "/models/fraud/versions/9.9.9/lineage",
        "/models/fraud/aliases/none",
        "/models/fraud/aliases/none/history",
        "/endpoints/none",
        "/endpoints/none?at=1",
        "/endpoints/none/explain?key=k",
        "/endpoints/none/rollouts",
        "/endpoints/none/rollouts/r",
        "/endpoints/score/rollouts/none",
        "/endpoints/none/compare",
        "/endpoints/none/shadow",
        "/nodes/none",
    ],
)
async def test_what_is_not_there_is_not_found(house: House, path: str) -> None:
    await house.registered()
    checked(await house.client.get(f"/api/v1{path}"), "not_found")


async def test_a_list_is_read_page_by_page(house: House) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await house.client.post("/api/v1/models", json={"name": name})
    seen, after = [], ""
    while after is not None:
        params: dict[str, str | int] = {"limit": 2, "after": after}
        page = (await house.client.get("/api/v1/models", params=params)).json()
        assert len(page["items"]) <= 2
        seen += [item["name"] for item in page["items"]]
        after = page["next"]
    assert seen == ["a", "b", "c", "d", "e"]


@pytest.mark.parametrize(
    ("at", "moment"),
    [
        ("3", 3),
        ("2026-01-01T12:00:00Z", datetime(2026, 1, 1, 12, tzinfo=UTC)),
        ("2026-01-01T12:00:00%2B02:00", datetime(2026, 1, 1, 10, tzinfo=UTC)),
        ("2026-01-01T12:00:00+02:00", datetime(2026, 1, 1, 10, tzinfo=UTC)),
        ("2026-01-01T12:00:00-02:00", datetime(2026, 1, 1, 14, tzinfo=UTC)),
    ],
)
async def test_a_moment_is_a_position_or_a_time(
    house: House, at: str, moment: int | datetime
) -> None:
    await house.registered()
    response = await house.client.get(f"/api/v1/endpoints/score?at={at}")
    assert response.status_code == 200
    assert house.operations.calls[-1] == ("endpoint_at", {"at": moment})


async def test_a_key_is_explained_with_the_attributes_of_its_request(house: House) -> None:
    await house.registered()
    params = {"key": "u 1", "attributes": '{"tier":"beta"}'}
    response = await house.client.get("/api/v1/endpoints/score/explain", params=params)
    assert set(response.json()) == {"endpoint", "version", "bucket", "rule", "position", "event"}
    asked = {"key": "u 1", "attributes": {"tier": "beta"}, "at": None}
    assert house.operations.calls[-1] == ("explain_key", asked)
    wrong = await house.client.get(
        "/api/v1/endpoints/score/explain", params={"key": "u", "attributes": '{"tier":1}'}
    )
    checked(wrong, "invalid")


async def test_an_inference_carries_its_proof_in_its_headers(house: House) -> None:
    body = {"inputs": {"x": [1, 2]}, "key": "u", "attributes": {"tier": "beta"}}
    response = await house.client.post("/api/v1/endpoints/score/infer", json=body)
    assert response.status_code == 200
    answer = response.json()
    assert (answer["outputs"], answer["version"]) == ({"x": [1, 2]}, "1.0.0")
    assert all(name in response.headers for name in INFERENCE_HEADERS)
    assert response.headers["switchback-request-id"] == answer["request_id"]
    assert response.headers["switchback-rule"] == "b?ro hours?"
    asked = house.inferences.requests[-1]
    assert (asked["tenant"], asked["key"], asked["attributes"]) == ("acme", "u", {"tier": "beta"})


@pytest.mark.parametrize(
    "code", ["not_found", "invalid", "runtime_failed", "unavailable", "overloaded", "timeout"]
)
async def test_an_inference_that_fails_says_how_and_is_counted(house: House, code: str) -> None:
    body = {"inputs": {"fail": code}}
    checked(await house.client.post("/api/v1/endpoints/score/infer", json=body), code)
    text = (await house.client.get("/metrics")).text
    counted = f'code="{code}",endpoint="score",tenant="acme",version=""' in text
    assert counted == (code != "not_found")


async def test_metrics_count_by_route_and_not_by_path(house: House) -> None:
    await house.registered()
    for name in ("fraud", "none", "other"):
        await house.client.get(f"/api/v1/models/{name}")
    await house.client.get("/no/such/route")
    text = (await house.client.get("/metrics")).text
    route = 'switchback_http_requests_total{method="GET",route="/api/v1/models/{model}"'
    assert f'{route},status="200"}} 1.0' in text
    assert f'{route},status="404"}} 2.0' in text
    assert 'route="unknown",status="404"' in text


async def test_readiness_tells_each_part_and_fails_for_a_required_one(house: House) -> None:
    house.client.headers.pop("Authorization")
    assert (await house.client.get("/healthz")).json() == {"status": "ok"}
    ready = await house.client.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert ready.json()["parts"]["cache"]["state"] == "down"
    house.readiness.state["tables"] = Part(state="down", required=True, detail="away")
    response = await house.client.get("/readyz")
    assert (response.status_code, response.json()["status"]) == (503, "not_ready")
    assert (await house.client.get("/healthz")).status_code == 200

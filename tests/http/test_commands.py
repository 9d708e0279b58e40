"""Commands answer with their position, happen once for one Idempotency-Key, and say who asked."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.http.conftest import House
from tests.http.test_problems import checked

COMMANDS: list[tuple[str, str, Any, int]] = [
    ("POST", "/models", {"name": "churn"}, 201),
    ("POST", "/models", {"name": "fraud"}, 200),
    ("POST", "/models/fraud/versions", {"version": "2.0.0", "runtime": "echo"}, 201),
    ("PUT", "/models/fraud/aliases/live", {"version": "1.0.0"}, 200),
    ("POST", "/models/fraud/versions/1.0.0/retire", None, 200),
    ("PUT", "/endpoints/second", {"model": "fraud", "version": "1.0.0"}, 201),
    ("PUT", "/endpoints/score/policy", {"split": {"1.0.0": 1}}, 200),
    ("POST", "/endpoints/score/swap", {"to": "2.0.0"}, 202),
    ("POST", "/endpoints/score/swap?wait=true", {"to": "2.0.0"}, 200),
    ("POST", "/endpoints/score/rollback", {"reason": "worse"}, 200),
    ("POST", "/endpoints/score/rollback", None, 200),
    ("POST", "/endpoints/score/alerts", {"kind": "errors", "severity": "warning"}, 201),
    ("POST", "/nodes/n1/drain", None, 200),
    ("POST", "/tenants", {"name": "globex"}, 201),
    ("POST", "/tenants/acme/keys", {"scopes": ["read"], "expires_s": 60}, 201),
    ("DELETE", "/tenants/acme/keys/k1", None, 200),
    ("PUT", "/tenants/acme/quota", {"requests_per_s": 5}, 200),
]


@pytest.mark.parametrize(("method", "path", "body", "status"), COMMANDS)
async def test_a_command_answers_with_its_position(
    house: House, method: str, path: str, body: Any, status: int
) -> None:
    await house.registered()
    response = await house.client.request(method, f"/api/v1{path}", json=body)
    assert response.status_code == status, response.text
    position = response.json()["position"]
    assert response.headers["switchback-position"] == str(position)
    assert 0 < position <= await house.log.position()


async def test_a_repeat_with_the_same_key_is_the_same_command(house: House) -> None:
    await house.registered()
    headers = {"Idempotency-Key": "once"}
    path, body = "/api/v1/endpoints/score/policy", {"split": {"1.0.0": 1}}
    first = await house.client.put(path, json=body, headers=headers)
    named = path.replace("/api/v1", "/api/v1/tenants/acme")
    again = await house.client.put(named, json=body, headers=headers)
    assert first.json()["position"] == again.json()["position"] == await house.log.position()
    ids = {metadata.command_id for metadata in house.operations.metadata[-2:]}
    assert len(ids) == 1


async def test_another_key_path_or_tenant_is_another_command(house: House) -> None:
    house.tenants.add("globex", "read")
    for path, key in (
        ("/models", "a"),
        ("/models", "b"),
        ("/tenants/globex/models", "a"),
        ("/tenants", "a"),
    ):
        name = f"m{len(house.operations.metadata)}"
        response = await house.client.post(
            f"/api/v1{path}", json={"name": name}, headers={"Idempotency-Key": key}
        )
        assert response.status_code == 201
    assert len({metadata.command_id for metadata in house.operations.metadata}) == 4


async def test_the_log_knows_who_asked_and_in_which_trace(house: House) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for header in (trace, "not a trace"):
        await house.client.post(
            "/api/v1/models", json={"name": f"m{header[:1]}"}, headers={"traceparent": header}
        )
    known, unknown = house.operations.metadata
    assert (known.actor, known.traceparent) == ("key:k-0", trace)
    assert unknown.traceparent is None


async def test_a_refusal_says_why_and_where(house: House) -> None:
    await house.registered()
    put = await house.client.put("/api/v1/endpoints/score/policy", json={"split": {"1.0.0": -1}})
    assert checked(put, "invalid")["fields"] == {"split": "a weight is negative"}
    post = await house.client.post("/api/v1/models", json={"name": "fraud", "description": "x"})
    checked(post, "conflict")
    checked(await house.client.post("/api/v1/endpoints/none/rollback"), "not_found")


async def test_a_key_is_shown_once_with_its_expiry(house: House) -> None:
    response = await house.client.post(
        "/api/v1/tenants/acme/keys", json={"scopes": ["read", "infer"], "expires_s": 3600}
    )
    issued = response.json()
    members = {"position", "id", "key", "scopes", "expires_at", "tokens_per_minute"}
    assert set(issued) == members
    assert issued["expires_at"] is not None
    headers = {"Authorization": f"Bearer {issued['key']}"}
    assert (await house.client.get("/api/v1/models", headers=headers)).status_code == 200


async def test_the_answer_to_a_swap_has_the_names_of_the_contract(house: House) -> None:
    await house.registered()
    path = "/api/v1/endpoints/score/swap?wait=true"
    swap = (await house.client.post(path, json={"to": "2.0.0"})).json()
    assert {"from", "to", "state", "duration_ms", "position"} <= set(swap)
    assert (swap["from"], swap["to"], swap["state"]) == ("1.0.0", "2.0.0", "completed")


async def test_the_path_of_a_client_that_speaks_json_badly_is_still_json(
    client: httpx.AsyncClient,
) -> None:
    response = await client.post(
        "/api/v1/models",
        content=b'{"name":"m"}',
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert response.status_code == 201

"""The outside contract, call by call, as a plain HTTP client meets it; then the documents.

One system, in the order of a life. What every call answers is kept and held against the OpenAPI
document at the end, every event against the AsyncAPI document.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator

from events.catalogue import BY_TYPE
from switchback.embedded import PostgresServer
from switchback.process import open_process
from switchback.servers import addresses
from tests.scenarios.standing import beside, standing
from tests.scenarios.test_bad_input import problem_in
from tests.system import System

API = "/api/v1"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z\Z")


class Caller:
    """A plain client: no minimum positions, no retries. Keeps what it was answered."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http
        self.answers: list[httpx.Response] = []

    async def call(
        self, method: str, path: str, *, status: int, json: Any = None, headers: Any = None
    ) -> Any:
        """The body of an answer with this status."""
        return (await self.answer(method, path, status=status, json=json, headers=headers)).json()

    async def answer(
        self, method: str, path: str, *, status: int, json: Any = None, headers: Any = None
    ) -> httpx.Response:
        response = await self.http.request(method, API + path, json=json, headers=headers)
        self.answers.append(response)
        assert response.status_code == status, response.text
        if method == "GET":
            assert "switchback-position" not in response.headers
        elif status < 300 and not path.endswith("infer") and not path.endswith("explain"):
            assert response.headers["switchback-position"] == str(response.json()["position"])
        return response

    async def refused(
        self, method: str, path: str, code: str, json: Any = None, **more: Any
    ) -> Any:
        response = await self.http.request(method, API + path, json=json, **more)
        self.answers.append(response)
        return problem_in(response, code)


@pytest_asyncio.fixture(scope="module")
async def system(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> AsyncIterator[System]:
    async with standing(tmp_path_factory.mktemp("contract"), postgres_server) as system:
        yield system


@pytest_asyncio.fixture(scope="module")
async def caller(system: System) -> AsyncIterator[Caller]:
    headers = {"Authorization": f"Bearer {system.key}"}
    async with httpx.AsyncClient(base_url=system.url, headers=headers) as http:
        yield Caller(http)


async def registered(caller: Caller, model: str, *versions: str) -> None:
    await caller.call("POST", "/models", status=201, json={"name": model})
    for version in versions:
        body = {"version": version, "runtime": "echo", "config": {"answer": version}}
        await caller.call("POST", f"/models/{model}/versions", status=201, json=body)


async def placed(caller: Caller, endpoint: str) -> None:
    """An endpoint of its own model with versions 1.0.0 (active), 2.0.0 and 3.0.0."""
    await registered(caller, endpoint, "1.0.0", "2.0.0", "3.0.0")
    body = {"model": endpoint, "version": "1.0.0"}
    await caller.call("PUT", f"/endpoints/{endpoint}", status=201, json=body)


# ---------------------------------------------------------------------------- Models and versions


async def test_a_model_is_registered_read_and_kept(caller: Caller):
    body = {"name": "fraud", "description": "Is it?", "labels": {"team": "risk"}}
    made = await caller.call("POST", "/models", status=201, json=body)
    position = made.pop("position")
    assert made == body | {"aliases": {}}
    shown = await caller.call("GET", "/models/fraud", status=200)
    assert TIME.match(shown.pop("registered_at"))
    assert shown == made | {"position": position}
    again = await caller.call("POST", "/models", status=200, json=body)
    assert again == shown
    await caller.refused("POST", "/models", "conflict", body | {"description": "Is it not?"})
    minimal = await caller.call("POST", "/models", status=201, json={"name": "bare"})
    assert (minimal["description"], minimal["labels"]) == ("", {})
    await caller.refused("GET", "/models/none", "not_found")


async def test_a_version_is_immutable(caller: Caller):
    body = {
        "version": "1.0.0-rc.1+build.5",
        "runtime": "echo",
        "config": {"answer": {"yes": [1, 2.5, None, True]}},
        "memory_bytes": 1_000,
        "labels": {"commit": "abc"},
        "metrics": {"accuracy": 0.75},
    }
    made = await caller.call("POST", "/models/fraud/versions", status=201, json=body)
    expected = body | {"model": "fraud", "artifact": None, "parent": None, "state": "registered"}
    assert made == expected | {"position": made["position"]}
    shown = await caller.call("GET", "/models/fraud/versions/1.0.0-rc.1+build.5", status=200)
    assert TIME.match(shown["registered_at"])
    assert shown == made | {"residency": [], "registered_at": shown["registered_at"]}
    await caller.call(
        "PUT", "/models/fraud/aliases/early", status=200, json={"version": body["version"]}
    )
    again = await caller.call("POST", "/models/fraud/versions", status=200, json=body)
    assert again == made
    for change in ({"config": {}}, {"labels": {}}, {"metrics": {}}, {"memory_bytes": None}):
        await caller.refused("POST", "/models/fraud/versions", "conflict", body | change)
    after = await caller.call("GET", "/models/fraud/versions/1.0.0-rc.1+build.5", status=200)
    assert after == shown
    await caller.refused("GET", "/models/fraud/versions/9.9.9", "not_found")
    await caller.refused("GET", "/models/none/versions", "not_found")


async def test_lineage_is_told_nearest_first(caller: Caller):
    await registered(caller, "base", "1.0.0")
    await caller.call("POST", "/models", status=201, json={"name": "tuned"})
    for version, parent in (
        ("1.0.0", "base@1.0.0"),
        ("1.1.0", "tuned@1.0.0"),
        ("1.2.0", "tuned@1.1.0"),
    ):
        body = {"version": version, "runtime": "echo", "parent": parent}
        made = await caller.call("POST", "/models/tuned/versions", status=201, json=body)
        assert made["parent"] == parent
    middle = await caller.call("GET", "/models/tuned/versions/1.1.0/lineage", status=200)
    assert middle == {"ancestors": ["tuned@1.0.0", "base@1.0.0"], "descendants": ["tuned@1.2.0"]}
    root = await caller.call("GET", "/models/base/versions/1.0.0/lineage", status=200)
    assert root["descendants"] == ["tuned@1.0.0", "tuned@1.1.0", "tuned@1.2.0"]
    await caller.refused("GET", "/models/tuned/versions/9.9.9/lineage", "not_found")


async def test_an_alias_moves_and_its_history_tells_who_when_from_and_to(caller: Caller):
    await registered(caller, "aliased", "1.0.0", "2.0.0")
    path = "/models/aliased/aliases/production"
    positions = []
    for version in ("1.0.0", "2.0.0"):
        moved = await caller.call("PUT", path, status=200, json={"version": version})
        positions.append(moved.pop("position"))
        assert moved == {"model": "aliased", "alias": "production", "version": version}
        assert (await caller.call("GET", path, status=200))["version"] == version
        shown = await caller.call("GET", "/models/aliased", status=200)
        assert shown["aliases"] == {"production": version}
    unchanged = await caller.call("PUT", path, status=200, json={"version": "2.0.0"})
    assert unchanged["position"] == positions[-1]
    history = await caller.call("GET", path + "/history", status=200)
    moves = history["items"]
    assert [(move["from"], move["to"]) for move in moves] == [(None, "1.0.0"), ("1.0.0", "2.0.0")]
    assert [move["position"] for move in moves] == positions
    assert all(move["who"].startswith("key:") and TIME.match(move["when"]) for move in moves)
    await caller.refused("GET", "/models/aliased/aliases/none", "not_found")
    await caller.refused("GET", "/models/aliased/aliases/none/history", "not_found")


async def test_a_version_is_retired_when_nobody_needs_it(caller: Caller):
    await placed(caller, "leaving")
    retire = "/models/leaving/versions/{}/retire"
    problem = await caller.refused("POST", retire.format("1.0.0"), "conflict")
    assert "leaving" in problem["detail"]
    retired = await caller.call("POST", retire.format("3.0.0"), status=200)
    position = retired.pop("position")
    assert retired == {"model": "leaving", "version": "3.0.0", "state": "retired"}
    assert (await caller.call("POST", retire.format("3.0.0"), status=200))["position"] == position
    shown = await caller.call("GET", "/models/leaving/versions/3.0.0", status=200)
    assert shown["state"] == "retired"
    await caller.refused("POST", "/endpoints/leaving/swap", "invalid", {"to": "3.0.0"})
    await caller.refused("PUT", "/models/leaving/aliases/a", "conflict", {"version": "3.0.0"})
    await caller.refused("POST", retire.format("9.9.9"), "not_found")


# -------------------------------------------------------------------------------------- Endpoints


async def test_an_endpoint_is_created_once(caller: Caller):
    await registered(caller, "chat", "1.0.0", "2.0.0")
    body = {"model": "chat", "version": "1.0.0"}
    made = await caller.call("PUT", "/endpoints/chat", status=201, json=body)
    assert made["created_at"] == made["updated_at"]
    expected = {
        "name": "chat",
        "model": "chat",
        "policy": {"split": {"1.0.0": 100.0}},
        "active": "1.0.0",
        "previous": None,
        "rollout": None,
        "swap": None,
        "alerts": [],
    }
    assert {name: made[name] for name in expected} == expected
    assert await caller.call("GET", "/endpoints/chat", status=200) == made
    assert await caller.call("PUT", "/endpoints/chat", status=200, json=body) == made
    await caller.refused("PUT", "/endpoints/chat", "conflict", body | {"version": "2.0.0"})
    resident = await caller.call("GET", "/models/chat/versions/1.0.0", status=200)
    assert [(on["node"], on["state"]) for on in resident["residency"]] == [("local", "resident")]


async def test_a_policy_is_answered_as_it_was_given(caller: Caller):
    await placed(caller, "split")
    rules = [
        {
            "name": "office hours",
            "when": {
                "days": ["mon", "tue"],
                "from": "09:00",
                "to": "17:00",
                "timezone": "Europe/Paris",
            },
            "split": {"2.0.0": 100.0},
        },
        {"name": "beta users", "when": {"attributes": {"tier": "beta"}}, "split": {"2.0.0": 1.0}},
    ]
    policy = {
        "split": {"1.0.0": 90.0, "2.0.0": 10.0},
        "sticky": False,
        "shadow": [{"version": "3.0.0", "fraction": 0.5}],
        "rules": rules,
    }
    changed = await caller.call("PUT", "/endpoints/split/policy", status=200, json=policy)
    assert changed["policy"] == policy
    assert await caller.call("GET", "/endpoints/split", status=200) == changed
    await caller.refused("PUT", "/endpoints/none/policy", "not_found", policy)


async def test_swaps_rollbacks_and_what_an_endpoint_was(caller: Caller):
    await placed(caller, "moving")
    created = await caller.call("GET", "/endpoints/moving", status=200)
    swap = "/endpoints/moving/swap"
    asked = await caller.call("POST", swap, status=202, json={"to": "2.0.0"})
    assert (asked["from"], asked["to"], asked["state"]) == ("1.0.0", "2.0.0", "requested")
    assert asked["duration_ms"] is None
    done = await caller.call("POST", swap + "?wait=true", status=200, json={"to": "2.0.0"})
    assert (done["from"], done["to"], done["state"]) == (*[done["from"]], "2.0.0", "completed")
    swapped = await caller.call("GET", "/endpoints/moving", status=200)
    assert (swapped["active"], swapped["previous"]) == ("2.0.0", "1.0.0")
    assert swapped["policy"] == {"split": {"2.0.0": 100.0}}
    assert swapped["swap"]["id"] == asked["id"]
    assert swapped["swap"]["duration_ms"] > 0
    third = await caller.call("POST", swap + "?wait=true", status=200, json={"to": "3.0.0"})
    assert {"from", "to", "state", "duration_ms", "position"} <= third.keys()
    assert (third["from"], third["to"]) == ("2.0.0", "3.0.0")
    back = await caller.call("POST", "/endpoints/moving/rollback", status=200, json={"reason": "r"})
    assert back["duration_ms"] > 0
    back.pop("duration_ms")
    position = back.pop("position")
    assert back == {"from": "3.0.0", "to": "2.0.0", "reason": "r"}
    after = await caller.call("GET", "/endpoints/moving", status=200)
    assert (after["active"], after["position"]) == ("2.0.0", position)
    for moment, then in (
        (created["position"], created),
        (created["updated_at"], created),
        (swapped["position"], swapped),
        (third["position"] - 1, None),
        (position, after),
        (after["updated_at"].replace("Z", "%2B00:00"), after),
    ):
        was = await caller.call("GET", f"/endpoints/moving?at={moment}", status=200)
        assert then is None or was == then, moment
    await caller.refused("GET", f"/endpoints/moving?at={created['position'] - 1}", "not_found")
    listed = await caller.call("GET", f"/endpoints?at={swapped['position']}&limit=1000", status=200)
    assert swapped in listed["items"]


async def test_a_swap_that_fails_says_why_and_leaves_the_old_version(caller: Caller):
    await placed(caller, "failing")
    body = {"version": "4.0.0", "runtime": "echo", "config": {"load_error": "no weights"}}
    await caller.call("POST", "/models/failing/versions", status=201, json=body)
    swap = "/endpoints/failing/swap?wait=true"
    failed = await caller.call("POST", swap, status=200, json={"to": "4.0.0", "timeout_s": 5})
    assert (failed["state"], failed["reason"]) == ("failed", "load_failed")
    assert "no weights" in failed["detail"]
    assert (await caller.call("GET", "/endpoints/failing", status=200))["active"] == "1.0.0"
    version = await caller.call("GET", "/models/failing/versions/4.0.0", status=200)
    assert [(on["state"], on["reason"]) for on in version["residency"]] == [("failed", "runtime")]


async def test_a_rollback_without_anywhere_to_go_is_refused(caller: Caller):
    await placed(caller, "new")
    await caller.refused("POST", "/endpoints/new/rollback", "conflict")
    await caller.refused("POST", "/endpoints/none/rollback", "not_found")


async def test_a_critical_alert_rolls_back_and_a_warning_does_not(caller: Caller):
    await placed(caller, "alarmed")
    alerts = "/endpoints/alarmed/alerts"
    await caller.call("POST", "/endpoints/alarmed/swap?wait=true", status=200, json={"to": "2.0.0"})
    body = {"kind": "latency", "severity": "warning", "detail": "p99 of 2 s"}
    warned = await caller.call("POST", alerts, status=201, json=body)
    assert body.items() <= warned.items()
    assert warned["version"] == "2.0.0"
    assert await caller.call("POST", alerts, status=201, json=body) == warned
    shown = await caller.call("GET", "/endpoints/alarmed", status=200)
    assert (shown["active"], shown["alerts"]) == ("2.0.0", [warned])
    body = {"kind": "errors", "severity": "critical"}
    await caller.call("POST", alerts, status=201, json=body)
    shown = await caller.call("GET", "/endpoints/alarmed", status=200)
    assert shown["active"] == "1.0.0"
    events = await caller.call("GET", "/events?entity=endpoint/alarmed&limit=1000", status=200)
    assert events["items"][-1]["type"] == "switchback.endpoint.rolled_back.v1"


# ------------------------------------------------------------------ Rollouts, comparison, shadows


async def test_a_rollout_is_started_steered_read_and_ended(caller: Caller):
    await placed(caller, "rolling")
    path = "/endpoints/rolling/rollouts"
    steps = [{"weight": 5.0, "hold_s": 3600.0, "min_samples": 100}, {"weight": 50.0, "hold_s": 1.0}]
    analysis = {"max_error_rate": 0.05, "on_inconclusive": "rollback"}
    body = {"to": "2.0.0", "steps": steps, "analysis": analysis}
    made = await caller.call("POST", path, status=201, json=body)
    expected = {
        "endpoint": "rolling",
        "baseline": "1.0.0",
        "candidate": "2.0.0",
        "state": "running",
        "step": 0,
        "weight": 5.0,
        "steps": steps,
        "analysis": analysis,
        "verdicts": [],
    }
    assert {name: made[name] for name in expected} == expected
    shown = await caller.call("GET", f"{path}/{made['id']}", status=200)
    assert {verdict["metric"] for verdict in shown.pop("verdicts")} >= {"error_rate"}
    made.pop("verdicts")
    assert shown == made
    endpoint = await caller.call("GET", "/endpoints/rolling", status=200)
    assert endpoint["rollout"]["id"] == made["id"]
    assert endpoint["policy"]["split"] == {"1.0.0": 95.0, "2.0.0": 5.0}
    await caller.refused("POST", path, "conflict", {"to": "3.0.0"})
    for verb, state in (("pause", "held"), ("resume", "running")):
        steered = await caller.call("POST", f"{path}/{made['id']}/{verb}", status=200)
        assert (steered["state"], steered["step"]) == (state, 0)
    promote = f"{path}/{made['id']}/promote"
    for _ in range(2):
        promoted = await caller.call("POST", promote, status=200, json={"from_step": 0})
        assert (promoted["step"], promoted["weight"]) == (1, 50.0)
    full = await caller.call("POST", promote, status=200, json={"to": "full"})
    assert (full["state"], full["weight"]) == ("completed", 100.0)
    await caller.refused("POST", f"{path}/{made['id']}/abort", "conflict")
    second = await caller.call("POST", path, status=201, json={"to": "3.0.0"})
    assert [step["weight"] for step in second["steps"]] == [5.0, 10.0, 25.0, 50.0, 100.0]
    ended = await caller.call(
        "POST", f"{path}/{second['id']}/abort", status=200, json={"reason": "no"}
    )
    assert (ended["state"], ended["weight"], ended["detail"]) == ("aborted", 0.0, "no")
    listed = await caller.call("GET", path, status=200)
    assert [rollout["id"] for rollout in listed["items"]] == [second["id"], made["id"]]
    endpoint = await caller.call("GET", "/endpoints/rolling", status=200)
    assert (endpoint["active"], endpoint["rollout"]) == ("2.0.0", None)
    for missing in (f"{path}/none", "/endpoints/none/rollouts/none"):
        await caller.refused("GET", missing, "not_found")


async def test_versions_are_compared_and_shadows_reported_without_any_traffic(caller: Caller):
    await placed(caller, "quiet")
    compare = "/endpoints/quiet/compare?baseline=1.0.0&candidate=2.0.0&since_s=60"
    compared = await caller.call("GET", compare, status=200)
    assert (compared["baseline"], compared["candidate"]) == ("1.0.0", "2.0.0")
    assert {side["requests"] for side in compared["versions"].values()} == {0}
    assert compared["difference"]["verdict"] == "inconclusive"
    report = await caller.call("GET", "/endpoints/quiet/shadow", status=200)
    assert report["versions"] == {}
    await caller.refused("GET", "/endpoints/quiet/compare", "invalid")
    for since_s in ("0", "-1", "nan", "1e9", "soon"):
        await caller.refused("GET", f"/endpoints/quiet/compare?since_s={since_s}", "invalid")
    await caller.refused("GET", "/endpoints/none/shadow", "not_found")


# ------------------------------------------------------------------------- Inference, explanation


async def test_an_answer_carries_its_proof_and_the_proof_is_explained(caller: Caller):
    await placed(caller, "asked")
    policy = {
        "split": {"1.0.0": 50, "2.0.0": 50},
        "rules": [
            {"name": "beta", "when": {"attributes": {"tier": "beta"}}, "split": {"3.0.0": 1}}
        ],
    }
    changed = await caller.call("PUT", "/endpoints/asked/policy", status=200, json=policy)
    infer = "/endpoints/asked/infer"
    body = {"inputs": {"any": ["json"]}, "key": "user-1", "parameters": {"temperature": 0}}
    answer = await caller.answer("POST", infer, status=200, json=body)
    assert answer.json().keys() == {"outputs", "version", "request_id"}
    headers = answer.headers
    version = answer.json()["version"]
    assert answer.json()["outputs"] == {"answer": version, "inputs": body["inputs"]}
    assert headers["switchback-request-id"] == answer.json()["request_id"]
    assert headers["switchback-version"] == version
    assert headers["switchback-position"] == str(changed["position"])
    assert headers["switchback-rule"] == ""
    assert headers["switchback-attempts"] == "1"
    assert 0 <= float(headers["switchback-overhead-ms"]) < 10_000
    repeated = {
        (await caller.call("POST", infer, status=200, json=body))["version"] for _ in range(20)
    }
    assert repeated == {version}
    explained = await caller.call("GET", "/endpoints/asked/explain?key=user-1", status=200)
    assert (explained["version"], explained["rule"]) == (version, None)
    assert explained["position"] == changed["position"]
    assert explained["event"].keys() == {"id", "type", "time", "actor"}
    assert explained["event"]["type"] == "switchback.endpoint.policy_set.v1"
    receipt = headers["switchback-receipt"]
    proved = await caller.call("POST", "/explain", status=200, json={"receipt": receipt})
    assert proved == explained | {"valid": True}
    beta = await caller.answer(
        "POST", infer, status=200, json=body | {"attributes": {"tier": "beta"}}
    )
    assert (beta.json()["version"], beta.headers["switchback-rule"]) == ("3.0.0", "beta")
    attributes = "/endpoints/asked/explain?key=user-1&attributes=%7B%22tier%22%3A%22beta%22%7D"
    assert (await caller.call("GET", attributes, status=200))["rule"] == "beta"
    await caller.refused("POST", "/endpoints/none/infer", "not_found", body)
    await caller.refused("GET", "/endpoints/none/explain?key=k", "not_found")


async def test_a_version_that_fails_is_told_from_a_platform_that_does(caller: Caller):
    await registered(caller, "broken")
    body = {"version": "1.0.0", "runtime": "echo", "config": {"error_rate": 1}}
    await caller.call("POST", "/models/broken/versions", status=201, json=body)
    made = {"model": "broken", "version": "1.0.0"}
    await caller.call("PUT", "/endpoints/broken", status=201, json=made)
    await caller.refused("POST", "/endpoints/broken/infer", "runtime_failed", {"inputs": 1})


# -------------------------------------------------------------------------------------- Nodes


async def test_a_node_is_shown_drained_and_gone(system: System, caller: Caller):
    settings = msgspec.structs.replace(system.settings, node_id="spare", gateway_id="spare")
    async with open_process(settings, addresses(settings), ("node",)):
        joined = await system.process.jetstream.events.position()
        headers = {"Switchback-Min-Position": str(joined)}
        node = await caller.call("GET", "/nodes/spare", status=200, headers=headers)
        assert node["state"] == "joined"
        assert node["memory_budget_bytes"] == settings.node_memory_bytes
        assert {"echo", "python"} <= set(node["runtimes"])
        batching = await caller.call("GET", "/nodes/spare/batching", status=200)
        assert batching == {"node": "spare", "items": [], "unanswered": []}
        names = [n["id"] for n in (await caller.call("GET", "/nodes", status=200))["items"]]
        assert names == ["local", "spare"]
        drained = await caller.call("POST", "/nodes/spare/drain", status=200, json={"reason": "r"})
        position = drained.pop("position")
        assert drained == {"id": "spare", "state": "draining"}
        again = await caller.call("POST", "/nodes/spare/drain", status=200)
        assert again["state"] == "draining"
        assert again["position"] >= position
        assert (await caller.call("GET", "/nodes/spare", status=200))["state"] == "draining"
    await system.process.routing.reach(await system.process.jetstream.events.position())
    headers = {"Switchback-Min-Position": str(system.process.routing.position)}
    node = await caller.call("GET", "/nodes/spare", status=200, headers=headers)
    assert (node["state"], node["resident"]) == ("left", [])
    await caller.refused("GET", "/nodes/none", "not_found")


# ------------------------------------------------------------------------- Tenants, keys, quotas


async def test_tenants_keys_and_quotas(system: System, caller: Caller):
    made = await caller.call("POST", "/tenants", status=201, json={"name": "acme"})
    assert made["name"] == "acme"
    assert await caller.call("POST", "/tenants", status=200, json={"name": "acme"}) == made
    body = {"scopes": ["operate", "read"], "expires_s": 3600}
    before = datetime.now(UTC)
    issued = await caller.call("POST", "/tenants/acme/keys", status=201, json=body)
    assert issued["scopes"] == ["operate", "read"]
    lasts = datetime.fromisoformat(issued["expires_at"]) - before
    assert timedelta(seconds=3600) <= lasts < timedelta(seconds=3700)
    listed = await caller.call("GET", "/tenants/acme/keys", status=200)
    assert [key["id"] for key in listed["items"]] == [issued["id"]]
    assert issued["key"] not in json.dumps(listed)
    budget = f"/tenants/acme/keys/{issued['id']}/budget"
    bounded = await caller.call("PUT", budget, status=200, json={"tokens_per_minute": 500})
    assert bounded["tokens_per_minute"] == 500
    [listed] = (await caller.call("GET", "/tenants/acme/keys", status=200))["items"]
    assert listed["tokens_per_minute"] == 500
    headers = {"Authorization": f"Bearer {issued['key']}"}
    async with httpx.AsyncClient(base_url=system.url, headers=headers) as http:
        acme = Caller(http)
        assert (await acme.call("GET", "/models", status=200))["items"] == []
        quota = {"commands_per_s": 1, "requests_per_s": None, "models_max": None}
        changed = await caller.call("PUT", "/tenants/acme/quota", status=200, json=quota)
        assert changed["quota"]["commands_per_s"] == 1
        assert (await caller.call("GET", "/tenants/acme", status=200))["quota"] == changed["quota"]
        answers = [await http.post(API + "/models", json={"name": f"m{n}"}) for n in range(5)]
        limited = [answer for answer in answers if answer.status_code == 429]
        assert limited
        for answer in limited:
            problem_in(answer, "rate_limited")
            assert int(answer.headers["retry-after"]) >= 1
        none = {"commands_per_s": 0, "requests_per_s": 0}
        await caller.call("PUT", "/tenants/acme/quota", status=200, json=none)
        await acme.refused("POST", "/models", "rate_limited", {"name": "never"})
        await caller.call("PUT", "/tenants/acme/quota", status=200, json={})
        await acme.call("POST", "/models", status=201, json={"name": "now"})
        revoked = await caller.call("DELETE", f"/tenants/acme/keys/{issued['id']}", status=200)
        assert revoked["id"] == issued["id"]
        await acme.refused("GET", "/models", "unauthenticated")
    shown = await caller.call("GET", "/tenants/acme/keys", status=200)
    assert TIME.match(shown["items"][0]["revoked_at"])


# ------------------------------------------------------------------------------- Lists and events


async def test_every_list_is_cut_into_pages_without_gap_or_repeat(caller: Caller):
    await registered(caller, "many", *(f"1.{n}.0" for n in (3, 1, 2, 10)))
    for path in (
        "/models",
        "/models/many/versions",
        "/models/aliased/aliases/production/history",
        "/endpoints",
        "/nodes",
        "/keys",
        "/endpoints/rolling/rollouts",
        "/events?entity=endpoint/moving",
    ):
        mark = "&" if "?" in path else "?"
        whole = (await caller.call("GET", f"{path}{mark}limit=1000", status=200))["items"]
        for limit in (1, 2, len(whole)):
            items, after = [], None
            while after is not None or not items:
                query = f"{path}{mark}limit={limit}" + (f"&after={after}" if after else "")
                page = await caller.call("GET", query, status=200)
                assert page.keys() == {"items", "next"}
                assert len(page["items"]) <= limit
                items += page["items"]
                after = page["next"]
                if after is None:
                    break
            assert items == whole, path
    versions = (await caller.call("GET", "/models/many/versions", status=200))["items"]
    assert [version["version"] for version in versions] == ["1.3.0", "1.1.0", "1.2.0", "1.10.0"]


async def test_events_are_cloud_events_in_order(caller: Caller):
    page = await caller.call("GET", "/events?entity=endpoint/moving", status=200)
    events = page["items"]
    assert [event["type"].split(".")[2] for event in events] == [
        "created",
        "swap_requested",
        "swap_completed",
        "swap_requested",
        "swap_completed",
        "rolled_back",
    ]
    for event in events:
        assert event["specversion"] == "1.0"
        assert (event["source"], event["subject"]) == ("/switchback/default", "endpoint/moving")
        assert TIME.match(event["time"])
    positions = [event["position"] for event in events]
    assert positions == sorted(set(positions))
    rest = await caller.call(
        "GET", f"/events?entity=endpoint/moving&after={positions[2]}", status=200
    )
    assert rest["items"] == events[3:]
    assert (await caller.call("GET", f"/events?after={2**62}", status=200))["items"] == []


async def streamed(caller: Caller, path: str, count: int, **headers: str) -> list[dict[str, Any]]:
    """The first events of a stream, each with its `id`."""
    found: list[dict[str, Any]] = []
    async with (
        asyncio.timeout(10),
        caller.http.stream("GET", API + path, headers=headers) as stream,
    ):
        assert stream.headers["content-type"] == "text/event-stream"
        id_ = ""
        async for line in stream.aiter_lines():
            if line.startswith("id: "):
                id_ = line.removeprefix("id: ")
            elif line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
                assert str(found[-1]["position"]) == id_
                if len(found) == count:
                    return found
    raise AssertionError(f"the stream ended after {len(found)} events")


async def test_the_stream_tells_the_same_and_goes_on_where_it_was(caller: Caller):
    listed = (await caller.call("GET", "/events?limit=1000", status=200))["items"]
    first = await streamed(caller, "/events/stream?after=0", 5)
    resumed = await streamed(
        caller,
        "/events/stream?after=0",
        len(listed) - 5,
        **{"Last-Event-ID": str(first[-1]["position"])},
    )
    assert first + resumed == listed
    last = listed[-1]["position"]
    waiting = asyncio.create_task(streamed(caller, f"/events/stream?after={last}", 1))
    made = await caller.call("POST", "/models", status=201, json={"name": "live"})
    [live] = await waiting
    assert (live["subject"], live["position"]) == ("model/live", made["position"])
    entity = "/events/stream?after=0&entity=endpoint/moving"
    moving = await streamed(caller, entity, 6)
    assert {event["subject"] for event in moving} == {"endpoint/moving"}


# --------------------------------------------------------------------------- Positions, repeats


READS = [
    "/models",
    "/models/fraud",
    "/models/fraud/versions",
    "/models/fraud/versions/1.0.0-rc.1+build.5",
    "/models/fraud/versions/1.0.0-rc.1+build.5/lineage",
    "/models/aliased/aliases/production",
    "/models/aliased/aliases/production/history",
    "/endpoints",
    "/endpoints/chat",
    "/endpoints/chat?at=0",
    "/endpoints/chat/explain?key=k",
    "/endpoints/chat/rollouts",
    "/nodes",
    "/nodes/local",
    "/events",
    "/keys",
    "/tenants/default",
]


async def test_a_read_of_what_is_not_yet_is_stale(caller: Caller):
    headers = {"Switchback-Min-Position": str(10**15)}
    calls = [caller.refused("GET", path, "stale", headers=headers) for path in READS]
    await asyncio.gather(*calls)


async def test_a_read_honours_the_position_of_a_command_on_any_gateway(
    system: System, caller: Caller
):
    async with (
        beside(system, gateway_id="reading") as other,
        httpx.AsyncClient(base_url=other.url, headers=caller.http.headers) as http,
    ):
        elsewhere = Caller(http)
        for n in range(20):
            made = await caller.call("POST", "/models", status=201, json={"name": f"far-{n}"})
            headers = {"Switchback-Min-Position": str(made["position"])}
            await elsewhere.call("GET", f"/models/far-{n}", status=200, headers=headers)


async def test_a_client_sees_what_it_was_told_is_done(caller: Caller):
    await placed(caller, "mine")

    async def written(n: int) -> None:
        name = f"mine-{n}"
        await caller.call("POST", "/models", status=201, json={"name": name})
        await caller.call("GET", f"/models/{name}", status=200)
        version = {"version": "1.0.0", "runtime": "echo"}
        await caller.call("POST", f"/models/{name}/versions", status=201, json=version)
        await caller.call("GET", f"/models/{name}/versions/1.0.0", status=200)
        alias = f"/models/{name}/aliases/a"
        await caller.call("PUT", alias, status=200, json={"version": "1.0.0"})
        await caller.call("GET", alias, status=200)
        model = await caller.call("GET", f"/models/{name}", status=200)
        assert model["aliases"] == {"a": "1.0.0"}

    await asyncio.gather(*(written(n) for n in range(8)))
    for n in range(1, 20):
        split = {"1.0.0": float(n), "2.0.0": 1.0}
        await caller.call("PUT", "/endpoints/mine/policy", status=200, json={"split": split})
        assert (await caller.call("GET", "/endpoints/mine", status=200))["policy"]["split"] == split


REPEATS: list[tuple[str, str, Any, list[tuple[str, str, Any]]]] = [
    (
        "POST",
        "/models",
        {"name": "twice"},
        [("PUT", "/models/again/aliases/b", {"version": "1.0.0"})],
    ),
    (
        "POST",
        "/models/again/versions",
        {"version": "5.0.0", "runtime": "echo"},
        [("POST", "/models/again/versions/5.0.0/retire", None)],
    ),
    (
        "PUT",
        "/models/again/aliases/a",
        {"version": "1.0.0"},
        [("PUT", "/models/again/aliases/a", {"version": "2.0.0"})],
    ),
    (
        "PUT",
        "/endpoints/again-2",
        {"model": "again", "version": "1.0.0"},
        [("PUT", "/endpoints/again-2/policy", {"split": {"2.0.0": 1}})],
    ),
    (
        "PUT",
        "/endpoints/again/policy",
        {"split": {"1.0.0": 1, "2.0.0": 2}},
        [("PUT", "/endpoints/again/policy", {"split": {"1.0.0": 1}})],
    ),
    (
        "POST",
        "/endpoints/again/swap",
        {"to": "2.0.0"},
        [
            ("POST", "/endpoints/again/swap?wait=true", {"to": "2.0.0"}),
            ("POST", "/endpoints/again/swap?wait=true", {"to": "1.0.0"}),
        ],
    ),
    (
        "POST",
        "/endpoints/again/swap?wait=true",
        {"to": "3.0.0"},
        [("POST", "/endpoints/again/swap?wait=true", {"to": "1.0.0"})],
    ),
    (
        "POST",
        "/endpoints/again/rollback",
        {"reason": "first"},
        [("POST", "/endpoints/again/swap?wait=true", {"to": "2.0.0"})],
    ),
    (
        "POST",
        "/endpoints/again/alerts",
        {"kind": "k", "severity": "critical"},
        [("POST", "/endpoints/again/alerts", {"kind": "k", "severity": "warning"})],
    ),
    (
        "POST",
        "/endpoints/again/rollouts",
        {"to": "1.0.0"},
        [
            ("POST", "/endpoints/again/rollback", {}),
            ("POST", "/endpoints/again/rollouts", {"to": "2.0.0"}),
        ],
    ),
    ("POST", "/models/again/versions/6.0.0/retire", None, []),
    ("POST", "/tenants", {"name": "twice"}, [("PUT", "/tenants/twice/quota", {"models_max": 1})]),
    (
        "POST",
        "/tenants/twice/keys",
        {"scopes": ["read"], "expires_s": 60},
        [("POST", "/tenants/twice/keys", {"scopes": ["read"]})],
    ),
    (
        "PUT",
        "/tenants/twice/quota",
        {"models_max": 5},
        [("PUT", "/tenants/twice/quota", {"models_max": 6})],
    ),
]


def lasting(answer: httpx.Response) -> tuple[int, str | None, Any]:
    """All of an answer but how long this very call took."""
    body = answer.json()
    if "/rollback" in str(answer.url):
        body.pop("duration_ms")
    return answer.status_code, answer.headers.get("switchback-position"), body


async def test_a_repeat_gets_the_first_answer_and_changes_nothing(system: System, caller: Caller):
    await placed(caller, "again")
    spare = {"version": "6.0.0", "runtime": "echo"}
    await caller.call("POST", "/models/again/versions", status=201, json=spare)
    async with (
        beside(system, gateway_id="repeating") as other,
        httpx.AsyncClient(base_url=other.url, headers=caller.http.headers) as elsewhere,
    ):
        for index, (method, path, body, between) in enumerate(REPEATS):
            headers = {"Idempotency-Key": f"repeat {index}"}

            async def repeated(
                http: httpx.AsyncClient,
                method: str = method,
                path: str = path,
                body: Any = body,
                headers: dict[str, str] = headers,
            ) -> tuple[int, str | None, Any]:
                return lasting(await http.request(method, API + path, json=body, headers=headers))

            first = await repeated(caller.http)
            assert first[0] < 300, first
            assert await repeated(caller.http) == first
            for other_method, other_path, other_body in between:
                done = await caller.http.request(other_method, API + other_path, json=other_body)
                assert done.status_code < 300, done.text
            before = await system.process.jetstream.events.position()
            assert await repeated(caller.http) == first, path
            assert await repeated(elsewhere) == first, path
            assert await system.process.jetstream.events.position() == before, path


async def test_a_key_used_for_another_body_is_another_command(caller: Caller):
    """What was acknowledged must be so: the first answer would say that `other` was made."""
    headers = {"Idempotency-Key": "shared"}
    for name in ("one", "other"):
        body = {"name": name}
        made = await caller.call("POST", "/models", status=201, json=body, headers=headers)
        shown = await caller.call("GET", f"/models/{name}", status=200)
        assert shown["position"] == made["position"]
    versions = "/models/one/versions"
    for version in ("1.0.0", "2.0.0"):
        body = {"version": version, "runtime": "echo"}
        await caller.call("POST", versions, status=201, json=body, headers=headers)
        await caller.call("GET", f"{versions}/{version}", status=200)
    changed = {"version": "1.0.0", "runtime": "echo", "config": {"answer": "changed"}}
    await caller.refused("POST", versions, "conflict", changed, headers=headers)


# -------------------------------------------------------------------------- Operations, documents


async def test_the_process_tells_how_it_is(caller: Caller):
    healthy = await caller.http.get("/healthz")
    assert (healthy.status_code, healthy.json()) == (200, {"status": "ok"})
    ready = (await caller.http.get("/readyz")).json()
    assert ready["status"] == "ready"
    assert {"log", "tables", "cache", "routing", "node"} <= ready["parts"].keys()
    metrics = (await caller.http.get("/metrics")).text
    assert (
        'switchback_http_requests_total{method="POST",route="/api/v1/models",status="201"}'
        in metrics
    )
    assert 'switchback_inference_requests_total{code="ok",endpoint="asked"' in metrics


def operations(document: dict[str, Any]) -> list[tuple[str, re.Pattern[str], str, dict[str, Any]]]:
    """(method, pattern of the path, template, operation), the most literal templates first."""
    found = []
    for template, item in document["paths"].items():
        pattern = re.compile(re.sub(r"\{[^}]*\}", "[^/]+", template) + r"\Z")
        for method, operation in item.items():
            found.append((method.upper(), pattern, template, operation))
    return sorted(found, key=lambda entry: entry[2].count("{"))


def schema_of(document: dict[str, Any], content: dict[str, Any]) -> dict[str, Any]:
    [media] = content.values()
    return media["schema"] | {"components": document["components"]}


async def test_every_answer_agrees_with_the_openapi_document(caller: Caller):
    """Runs after the others and holds everything they were answered against the document."""
    document = (await caller.http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    known = operations(document)
    validators: dict[tuple[str, str, str], Draft202012Validator] = {}
    seen = set()
    for answer in caller.answers:
        request, path = answer.request, answer.url.path
        method, _, template, operation = next(
            entry for entry in known if entry[0] == request.method and entry[1].match(path)
        )
        described = operation["responses"].get(str(answer.status_code))
        assert described is not None, f"{method} {template} answered {answer.status_code}"
        if "$ref" in described:
            described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
        key = (method, template, str(answer.status_code))
        if key not in validators:
            schema = schema_of(document, described["content"])
            validators[key] = Draft202012Validator(schema)
        validators[key].validate(answer.json())
        assert list(described["content"]) == [answer.headers["content-type"]]
        if answer.is_success:
            seen.add((method, template.replace("/tenants/{tenant}", "")))
            if request.content and "requestBody" in operation:
                body = schema_of(document, operation["requestBody"]["content"])
                Draft202012Validator(body).validate(json.loads(request.content))
    everything = {
        (method, template.replace("/tenants/{tenant}", ""))
        for method, _, template, _ in known
        if template.startswith(API)
    }
    assert everything - seen == {("GET", "/api/v1/events/stream")}


async def test_every_event_agrees_with_the_asyncapi_document(system: System, caller: Caller):
    document = (await caller.http.get("/asyncapi.json")).json()
    assert document["asyncapi"].startswith("3.")
    messages = document["components"]["messages"]
    assert messages.keys() == BY_TYPE.keys()
    found = set()
    for tenant in ("default", "system", "acme", "twice"):
        path = f"/tenants/{tenant}/events?limit=1000"
        for event in (await caller.call("GET", path, status=200))["items"]:
            payload = messages[event["type"]]["payload"] | {"components": document["components"]}
            Draft202012Validator(payload).validate(event)
            aggregate = event["subject"].partition("/")[0]
            assert event["type"] in document["channels"][aggregate]["messages"]
            found.add(event["type"])
    assert len(found) >= 15, found

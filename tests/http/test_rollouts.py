"""Rollouts over HTTP: what is asked reaches the house as it was meant, and bad input nobody."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
import pytest_asyncio

from engine.decisions.rollout_plan import DEFAULT_STEPS
from events import EntityId
from events.catalogue.endpoints import Analysis, RolloutAborted, RolloutStarted
from tests.http.conftest import House
from tests.http.test_problems import checked

ROLLOUTS = "/api/v1/endpoints/score/rollouts"
STEPS = [{"weight": 10, "hold_s": 30, "min_samples": 100}, {"weight": 100, "hold_s": 0}]


@pytest_asyncio.fixture
async def ready(house: House) -> House:
    """With an endpoint and a second version to roll out."""
    await house.registered()
    body = {"version": "2.0.0", "runtime": "echo"}
    response = await house.client.post("/api/v1/models/fraud/versions", json=body)
    assert response.status_code == 201
    return house


async def started(house: House, **members: Any) -> dict[str, Any]:
    body = {"to": "2.0.0", "steps": STEPS, **members}
    response = await house.client.post(ROLLOUTS, json=body)
    assert response.status_code == 201, response.text
    rollout: dict[str, Any] = response.json()
    return rollout


async def steered(house: House, rollout: dict[str, Any], verb: str, body: Any) -> dict[str, Any]:
    response = await house.client.post(f"{ROLLOUTS}/{rollout['id']}/{verb}", json=body)
    assert response.status_code == 200, response.text
    changed: dict[str, Any] = response.json()
    assert response.headers["switchback-position"] == str(changed["position"])
    assert changed["position"] == await house.log.position()
    return changed


async def last_event(house: House) -> Any:
    score = EntityId("acme", "endpoint", "score")
    return [recorded.event async for recorded in house.log.read(score)][-1]


async def test_a_rollout_starts_with_the_steps_and_the_analysis_that_were_asked_for(
    ready: House,
) -> None:
    analysis = {"metric": "timeout_rate", "alpha": 0.01, "on_inconclusive": "rollback"}
    rollout = await started(ready, analysis=analysis)
    assert (rollout["state"], rollout["step"], rollout["weight"]) == ("running", 0, 10)
    assert (rollout["baseline"], rollout["candidate"]) == ("1.0.0", "2.0.0")
    event = await last_event(ready)
    assert isinstance(event, RolloutStarted)
    assert [step.weight for step in event.steps] == [10, 100]
    assert event.steps[0].min_samples == 100
    assert event.analysis == Analysis(metric="timeout_rate", alpha=0.01, on_inconclusive="rollback")


async def test_without_steps_a_rollout_takes_the_default_ones(ready: House) -> None:
    response = await ready.client.post(ROLLOUTS, json={"to": "2.0.0"})
    assert response.status_code == 201
    event = await last_event(ready)
    assert event.steps == DEFAULT_STEPS
    assert [step.weight for step in event.steps] == [5, 10, 25, 50, 100]
    assert event.analysis == Analysis()


async def test_each_verb_moves_the_rollout_and_answers_with_it(ready: House) -> None:
    rollout = await started(ready)
    held = await steered(ready, rollout, "pause", None)
    assert (held["state"], held["held_reason"]) == ("held", "paused")
    assert (await steered(ready, rollout, "resume", {}))["state"] == "running"
    assert (await steered(ready, rollout, "promote", None))["step"] == 1
    completed = await steered(ready, rollout, "promote", {"to": "full", "from_step": 1})
    assert (completed["state"], completed["weight"]) == ("completed", 100)


async def test_an_abort_says_why(ready: House) -> None:
    rollout = await started(ready)
    aborted = await steered(ready, rollout, "abort", {"reason": "too slow"})
    assert (aborted["state"], aborted["detail"], aborted["weight"]) == ("aborted", "too slow", 0)
    event = await last_event(ready)
    assert isinstance(event, RolloutAborted)
    assert event.detail == "too slow"


async def test_two_who_promote_the_same_step_take_one(ready: House) -> None:
    path = f"{ROLLOUTS}/{(await started(ready))['id']}/promote"
    first = await ready.client.post(path, json={"from_step": 0})
    again = await ready.client.post(path, json={"from_step": 0})
    assert again.json() == first.json()
    assert again.json()["step"] == 1
    assert again.json()["position"] == await ready.log.position()
    checked(await ready.client.post(path, json={"from_step": 2}), "conflict")


async def test_a_repeated_promotion_moves_one_step(ready: House) -> None:
    path = f"{ROLLOUTS}/{(await started(ready))['id']}/promote"
    headers = {"Idempotency-Key": "once"}
    first = await ready.client.post(path, json={}, headers=headers)
    again = await ready.client.post(path, json={}, headers=headers)
    assert first.json()["position"] == again.json()["position"] == await ready.log.position()


@pytest.mark.parametrize("verb", ["promote", "pause", "resume", "abort"])
async def test_a_rollout_that_is_over_or_unknown_is_not_steered(ready: House, verb: str) -> None:
    rollout = await started(ready)
    await steered(ready, rollout, "promote", {"to": "full"})
    before = await ready.log.position()
    checked(await ready.client.post(f"{ROLLOUTS}/{rollout['id']}/{verb}"), "conflict")
    checked(await ready.client.post(f"{ROLLOUTS}/unknown/{verb}"), "not_found")
    elsewhere = f"/api/v1/endpoints/none/rollouts/{rollout['id']}/{verb}"
    checked(await ready.client.post(elsewhere), "not_found")
    assert await ready.log.position() == before


@pytest.mark.parametrize("state", ["running", "held"])
async def test_a_live_rollout_shows_what_the_evidence_says_now(ready: House, state: str) -> None:
    rollout = await started(ready)
    if state == "held":
        await steered(ready, rollout, "pause", None)
    shown = (await ready.client.get(f"{ROLLOUTS}/{rollout['id']}")).json()
    assert shown["state"] == state
    (verdict,) = shown["verdicts"]
    assert (verdict["metric"], verdict["outcome"]) == ("error_rate", "inconclusive")
    assert (verdict["baseline_samples"], verdict["candidate_samples"]) == (950, 50)
    assert (verdict["e_value"], verdict["threshold"], verdict["alpha"]) == (1.5, 20, 0.05)
    assert (verdict["estimate"], verdict["interval"]) == (0.01, [-0.02, 0.04])


async def test_an_ended_rollout_shows_what_its_events_said(ready: House) -> None:
    rollout = await started(ready)
    await steered(ready, rollout, "abort", None)
    shown = (await ready.client.get(f"{ROLLOUTS}/{rollout['id']}")).json()
    assert (shown["state"], shown["verdicts"]) == ("aborted", [])


async def test_rollouts_are_listed_newest_first(ready: House) -> None:
    assert (await ready.client.get(ROLLOUTS)).json() == {"items": [], "next": None}
    first = await started(ready)
    await steered(ready, first, "abort", None)
    second = await started(ready)
    listed = (await ready.client.get(ROLLOUTS)).json()
    assert [item["id"] for item in listed["items"]] == [second["id"], first["id"]]


async def test_answers_about_rollouts_fit_the_schemas_that_describe_them(ready: House) -> None:
    rollout = await started(ready)
    document = (await ready.client.get("/openapi.json")).json()
    for path in ("/rollouts", "/rollouts/{rollout}", "/compare", "/shadow"):
        template = f"/api/v1/endpoints/{{endpoint}}{path}"
        answer = await ready.client.get(template.format(endpoint="score", rollout=rollout["id"]))
        described = document["paths"][template]["get"]["responses"]["200"]
        schema = described["content"]["application/json"]["schema"]
        jsonschema.validate(answer.json(), {**schema, "components": document["components"]})


@pytest.mark.parametrize(
    ("members", "field"),
    [
        ({"steps": [{"weight": 50, "hold_s": 1}, {"weight": 25, "hold_s": 1}]}, "steps"),
        ({"steps": [{"weight": 50, "hold_s": 1}, {"weight": 50, "hold_s": 1}]}, "steps"),
        ({"steps": [{"weight": -1, "hold_s": 1}]}, "steps"),
        ({"steps": [{"weight": 101, "hold_s": 1}]}, "steps"),
        ({"steps": [{"weight": 50, "hold_s": -1}]}, "steps[0].hold_s"),
        ({"steps": [{"weight": 50, "hold_s": 30 * 24 * 3600 + 1}]}, "steps[0].hold_s"),
        ({"to": "9.9.9"}, "to"),
        ({"to": "1.0.0"}, "to"),
        ({"analysis": {"metric": "beauty"}}, "analysis.metric"),
    ],
)
async def test_a_plan_that_cannot_be_is_refused_by_field_and_leaves_no_event(
    ready: House, members: dict[str, Any], field: str
) -> None:
    before = await ready.log.position()
    response = await ready.client.post(ROLLOUTS, json={"to": "2.0.0", "steps": STEPS} | members)
    assert list(checked(response, "invalid")["fields"]) == [field]
    assert await ready.log.position() == before


async def test_an_endpoint_has_one_rollout_at_a_time(ready: House) -> None:
    await started(ready)
    before = await ready.log.position()
    checked(await ready.client.post(ROLLOUTS, json={"to": "2.0.0"}), "conflict")
    assert await ready.log.position() == before


async def test_an_alert_is_about_the_version_it_names_or_the_newest(ready: House) -> None:
    path, alert = "/api/v1/endpoints/score/alerts", {"kind": "errors", "severity": "warning"}
    named = await ready.client.post(path, json=alert | {"version": "2.0.0"})
    assert named.json()["version"] == "2.0.0"
    assert (await last_event(ready)).version == "2.0.0"
    unnamed = await ready.client.post(path, json=alert)
    assert unnamed.json()["version"] == "1.0.0"
    assert (await last_event(ready)).version is None


async def test_two_versions_are_compared_over_a_span(ready: House) -> None:
    path = "/api/v1/endpoints/score/compare"
    params = {"baseline": "1.0.0", "candidate": "2.0.0+build", "since_s": "0.5"}
    answer = (await ready.client.get(path, params=params)).json()
    assert (answer["baseline"], answer["candidate"]) == ("1.0.0", "2.0.0+build")
    assert (answer["endpoint"], answer["since_s"], answer["rollout"]) == ("score", 0.5, None)
    assert set(answer["versions"]) == {"1.0.0", "2.0.0+build"}
    shown = {"requests", "errors", "error_rate", "p50_ms", "p95_ms", "p99_ms"}
    assert all(shown <= set(summary) for summary in answer["versions"].values())
    difference = answer["difference"]
    assert difference["verdict"] == "inconclusive"
    assert difference["error_rate"] == {"estimate": None, "interval": None}


async def test_a_comparison_says_which_versions_and_what_span_it_took_by_itself(
    ready: House,
) -> None:
    answer = (await ready.client.get("/api/v1/endpoints/score/compare")).json()
    assert answer["baseline"] == "1.0.0"
    assert answer["candidate"] != answer["baseline"]
    assert answer["since_s"] == 300


async def test_a_version_is_not_compared_with_itself(ready: House) -> None:
    response = await ready.client.get(
        "/api/v1/endpoints/score/compare?baseline=1.0.0&candidate=1.0.0"
    )
    assert list(checked(response, "invalid")["fields"]) == ["baseline"]


async def test_the_shadow_report_tells_of_each_shadow_version(ready: House) -> None:
    answer = (await ready.client.get("/api/v1/endpoints/score/shadow?since_s=60")).json()
    assert (answer["endpoint"], answer["since_s"]) == ("score", 60)
    told = answer["versions"]["3.0.0"]
    assert (told["mirrored"], told["compared"], told["agreed"]) == (9, 8, 6)
    assert told["disagreement_rate"] == 0.25
    low, high = told["interval"]
    assert low < 0.25 < high

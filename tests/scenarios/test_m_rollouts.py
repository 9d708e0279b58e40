"""Rollouts that judge themselves, alerts, shadows. Through HTTP, under traffic, as a team would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.runtimes import describe_artifact
from switchback.client import Client, Problem
from tests.scenarios.traffic import Traffic, counted, traffic
from tests.system import System

WEIGHTS = (5, 10, 25, 50, 100)
ROLLOUT_EVENTS = "switchback.endpoint.rollout_"
FICKLE = """
def load(artifact):
    def answer(inputs, parameters):
        if inputs == "degraded":
            raise ValueError("this version cannot take these inputs")
        return {"answer": "2.0.0", "inputs": inputs}
    return answer
"""


def steps(hold_s: float, *, min_samples: int = 5) -> list[dict[str, Any]]:
    return [{"weight": weight, "hold_s": hold_s, "min_samples": min_samples} for weight in WEIGHTS]


async def endpoint_of(client: Client, **configs: dict[str, object]) -> None:
    """Model `fraud` with echo versions `v1_0_0=...`; endpoint `scores` on the first."""
    await client.register_model("fraud")
    for name, config in configs.items():
        version = name.removeprefix("v").replace("_", ".")
        await client.register_version("fraud", version, runtime="echo", config=config)
    first = next(iter(configs)).removeprefix("v").replace("_", ".")
    await client.create_endpoint("scores", model="fraud", version=first)


def fickle_artifact(root: Path) -> dict[str, Any]:
    directory = root / "fickle"
    directory.mkdir(parents=True)
    (directory / "fickle.py").write_text(FICKLE)
    artifact = describe_artifact(directory)
    return {"uri": artifact.uri, "sha256": artifact.sha256, "size_bytes": artifact.size_bytes}


async def register_fickle(system: System) -> None:
    """2.0.0: as good as any, until it is asked what it cannot answer."""
    await system.client.register_version(
        "fraud",
        "2.0.0",
        runtime="python",
        config={"factory": "fickle:load"},
        artifact=fickle_artifact(system.settings.artifact_roots[0]),
    )


async def history(client: Client) -> list[dict[str, Any]]:
    return [event async for event in client.events(entity="endpoint/scores")]


async def rollout_events(client: Client) -> list[str]:
    """What happened to rollouts, holds left out: whether one is needed depends on the machine."""
    kinds = [event["type"] for event in await history(client)]
    named = [kind.removeprefix(ROLLOUT_EVENTS) for kind in kinds if ROLLOUT_EVENTS in kind]
    return [name.removesuffix(".v1") for name in named if name != "held.v1"]


@pytest.mark.slow
@pytest.mark.parametrize("requests", [100, 10_000])
async def test_m02_a_b_compared_and_the_winner_promoted(system: System, requests: int):
    client = system.client
    await endpoint_of(client, v1_0_0={"error_rate": 0.3, "seed": 1}, v2_0_0={})
    await client.set_policy("scores", {"split": {"1.0.0": 90, "2.0.0": 10}})
    asked = Traffic(client, "scores")
    await asked.ask_times(requests)
    await counted(system, "scores", requests=requests)
    compared = await client.compare("scores", baseline="1.0.0", candidate="2.0.0")
    old, new = (compared["versions"][version] for version in ("1.0.0", "2.0.0"))
    assert old["requests"] + new["requests"] == requests
    assert old["errors"] == asked.failed > 0
    assert (new["errors"], new["error_rate"]) == (0, 0.0)
    assert new["requests"] == asked.answered["2.0.0"]
    assert 0 < new["p50_ms"] <= new["p95_ms"] <= new["p99_ms"]
    if requests > 100:
        assert 0.07 < new["requests"] / requests < 0.13
        assert compared["difference"]["verdict"] == "pass"
        low, high = compared["difference"]["error_rate"]["interval"]
        assert -0.4 < low < high < -0.2
    swapped = await client.swap("scores", to="2.0.0")
    assert swapped["state"] == "completed"
    after = Traffic(client, "scores")
    await after.ask_times(50)
    assert after.answered == {"2.0.0": 50}


@pytest.mark.slow
async def test_m03_a_good_canary_takes_every_step_and_completes(system: System):
    client = system.client
    await endpoint_of(client, v1_0_0={}, v2_0_0={})
    async with traffic(client, "scores") as asked:
        started = await client.start_rollout(
            "scores", to="2.0.0", steps=steps(0.2), analysis={"margin": 0.5}
        )
        assert (started["state"], started["step"], started["weight"]) == ("running", 0, 5)
        ended = await client.wait_for_rollout("scores", started["id"])
    assert (ended["state"], ended["weight"]) == ("completed", 100)
    assert asked.failed == 0
    assert await rollout_events(client) == ["started", *["advanced"] * 4, "completed"]
    moves = [event["data"] for event in await history(client) if "verdicts" in event["data"]]
    for move in moves:
        if move.get("reason") == "passed":
            assert {verdict["outcome"] for verdict in move["verdicts"]} == {"pass"}
            assert all(verdict["candidate_samples"] >= 5 for verdict in move["verdicts"])
    endpoint = await client.endpoint("scores")
    assert (endpoint["active"], endpoint["previous"]) == ("2.0.0", "1.0.0")
    assert endpoint["rollout"] is None


@pytest.mark.slow
@pytest.mark.parametrize("step", range(len(WEIGHTS)))
async def test_m03_a_canary_that_degrades_is_rolled_back_from_any_step(system: System, step: int):
    client = system.client
    await endpoint_of(client, v1_0_0={})
    await register_fickle(system)
    async with traffic(client, "scores") as asked:
        started = await client.start_rollout(
            "scores", to="2.0.0", steps=steps(3600), analysis={"max_error_rate": 0.1}
        )
        for passed in range(step):
            await client.promote_rollout("scores", started["id"], from_step=passed)
        await counted(system, "scores", requests=20)
        asked.inputs = "degraded"
        ended = await client.wait_for_rollout("scores", started["id"])
    assert (ended["state"], ended["step"], ended["weight"]) == ("aborted", step, 0)
    assert ended["reason"] in ("failed", "alert")
    assert asked.failed > 0
    endpoint = await client.endpoint("scores")
    assert endpoint["policy"]["split"] == {"1.0.0": 100.0}
    assert "switchback.endpoint.rolled_back.v1" in {e["type"] for e in await history(client)}
    await asked.ask()
    assert asked.answered["1.0.0"] > 0


@pytest.mark.slow
async def test_m03_a_canary_without_traffic_is_held_and_never_passes(system: System):
    client = system.client
    await endpoint_of(client, v1_0_0={}, v2_0_0={})
    started = await client.start_rollout("scores", to="2.0.0", steps=steps(0.0))
    held = await client.wait_for_rollout("scores", started["id"], until={"held"})
    assert (held["state"], held["held_reason"], held["weight"]) == ("held", "inconclusive", 5)
    assert "pass" not in {verdict["outcome"] for verdict in held["verdicts"]}
    aborted = await client.abort_rollout("scores", started["id"], reason="nobody asks")
    assert aborted["state"] == "aborted"


@pytest.mark.slow
async def test_m04_a_shadow_is_compared_and_never_answers(system: System):
    client = system.client
    same, other = {"answer": "yes"}, {"answer": "no"}
    await endpoint_of(client, v1_0_0=same, v2_0_0=same, v3_0_0=other, v4_0_0={"error_rate": 1.0})
    shadows = [{"version": version} for version in ("2.0.0", "3.0.0", "4.0.0")]
    await client.set_policy("scores", {"split": {"1.0.0": 100}, "shadow": shadows})
    asked = Traffic(client, "scores")
    await asked.ask_times(100)
    assert (asked.answered, asked.failed) == ({"1.0.0": 100}, 0)
    await counted(system, "scores", requests=100, compared=200)
    report = await client.shadow("scores")
    assert report["versions"].keys() == {"2.0.0", "3.0.0", "4.0.0"}
    agreeing, differing, failing = report["versions"].values()
    assert (agreeing["mirrored"], agreeing["compared"], agreeing["agreed"]) == (100, 100, 100)
    assert (differing["compared"], differing["agreed"]) == (100, 0)
    assert (agreeing["disagreement_rate"], differing["disagreement_rate"]) == (0.0, 1.0)
    assert agreeing["interval"][1] < 0.15 < 0.85 < differing["interval"][0]
    assert (failing["compared"], failing["errors_by_code"]) == (0, {"runtime_failed": 100})
    compared = await client.compare("scores", baseline="1.0.0", candidate="2.0.0")
    assert compared["versions"]["2.0.0"]["requests"] == 0  # copies are no requests


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "state"), [("yes", "completed"), ("no", "aborted")])
async def test_m04_a_shadow_that_disagrees_is_never_promoted(
    system: System, answer: str, state: str
):
    client = system.client
    await endpoint_of(client, v1_0_0={"answer": "yes"}, v2_0_0={"answer": answer})
    shadow = [{"version": "2.0.0"}]
    await client.set_policy("scores", {"split": {"1.0.0": 100}, "shadow": shadow})
    plan = [
        {"weight": 0, "hold_s": 0.2, "min_samples": 20},
        {"weight": 50, "hold_s": 0.2, "min_samples": 5},
    ]
    async with traffic(client, "scores") as asked:
        started = await client.start_rollout(
            "scores", to="2.0.0", steps=plan, analysis={"max_disagreement_rate": 0.2, "margin": 0.5}
        )
        ended = await client.wait_for_rollout("scores", started["id"])
    assert ended["state"] == state, ended
    assert asked.failed == 0
    if state == "aborted":
        assert asked.answered.keys() == {"1.0.0"}
        assert ended["detail"].startswith("max_disagreement_rate: ")
        assert (ended["reason"], ended["step"]) == ("failed", 0)


async def test_m05_a_critical_alert_restores_the_old_version_at_once(system: System):
    client = system.client
    await endpoint_of(client, v1_0_0={}, v2_0_0={"error_rate": 1.0})
    await client.swap("scores", to="2.0.0")
    asked = Traffic(client, "scores")
    await asked.ask()
    assert asked.failed == 1
    await client.raise_alert("scores", kind="errors", severity="critical", detail="all fail")
    await asked.ask_times(50)
    assert (asked.failed, asked.answered) == (1, {"1.0.0": 50})


@pytest.mark.slow
async def test_m05_a_version_that_always_fails_is_rolled_back_without_anybody(system: System):
    client = system.client
    await endpoint_of(client, v1_0_0={}, v2_0_0={"error_rate": 1.0})
    async with traffic(client, "scores") as asked:
        swapped = await client.swap("scores", to="2.0.0")
        async for event in client.follow_events(
            after=swapped["position"], entity="endpoint/scores"
        ):
            if event["type"] == "switchback.endpoint.rolled_back.v1":
                break
        failed = asked.failed
        await counted(system, "scores", requests=asked.answered.total() + failed)
    assert failed >= 5
    client.min_position = event["position"]
    [alert] = (await client.endpoint("scores"))["alerts"]
    assert (alert["kind"], alert["severity"], alert["version"]) == (
        "error_burst",
        "critical",
        "2.0.0",
    )
    after = Traffic(client, "scores")
    await after.ask_times(20)
    assert (after.failed, after.answered) == (0, {"1.0.0": 20})


@pytest.mark.slow
@pytest.mark.settings(alert_quiet_s=1.0)
async def test_m05_an_alert_clears_by_itself_with_an_event(system: System):
    client = system.client
    await endpoint_of(client, v1_0_0={}, v2_0_0={})
    alert = await client.raise_alert("scores", kind="complaints", severity="warning")
    async for event in client.follow_events(entity="endpoint/scores"):
        if event["type"] == "switchback.endpoint.alert_cleared.v1":
            break
    assert event["data"]["alert_id"] == alert["id"]
    assert event["actor"] == "reaction:alerts"
    client.min_position = event["position"]
    assert (await client.endpoint("scores"))["alerts"] == []


async def test_m03_a_candidate_that_cannot_be_loaded_is_refused_and_takes_nothing(system: System):
    """Other plans that cannot be: test_bad_input.py."""
    client = system.client
    await endpoint_of(client, v1_0_0={}, v2_0_0={"load_error": "no such weights"})
    before = await history(client)
    with pytest.raises(Problem) as refused:
        await client.start_rollout("scores", to="2.0.0")
    assert refused.value.code == "runtime_failed"
    assert "no such weights" in refused.value.detail
    assert await history(client) == before


async def test_m03_a_second_rollout_is_refused_while_one_is_live(system: System):
    client = system.client
    await endpoint_of(client, v1_0_0={}, v2_0_0={}, v3_0_0={})
    live = await client.start_rollout("scores", to="2.0.0", steps=steps(3600))
    for command in (
        client.start_rollout("scores", to="3.0.0", steps=steps(3600)),
        client.swap("scores", to="3.0.0"),
    ):
        with pytest.raises(Problem) as refused:
            await command
        assert refused.value.code == "conflict"
    again = await client.start_rollout("scores", to="2.0.0", steps=steps(3600))
    assert again["id"] == live["id"]

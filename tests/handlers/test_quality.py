"""Rollouts judged by the quality of answers, through HTTP: what a check finds bad goes back."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from switchback.client import Client, Problem
from tests.scenarios.traffic import traffic
from tests.system import System

STEPS = [
    {"weight": 25, "hold_s": 0.5, "min_samples": 30},
    {"weight": 100, "hold_s": 0.5, "min_samples": 30},
]
QUALITY = {"metric": "quality", "check": "right", "margin": 0.5}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.settings(check_functions={"right": "tests.handlers.test_quality:is_right"}),
]


def is_right(inputs: Any, outputs: Any) -> bool:
    """The check: to `2 + 2`, it is `4`."""
    assert inputs == "2 + 2"
    return bool(outputs["answer"] == "4")


async def endpoint_of(client: Client, *answers: str) -> None:
    """Versions 1.0.0, 2.0.0... that answer so; endpoint `sums` on the first."""
    await client.register_model("adder")
    for number, answer in enumerate(answers, start=1):
        await client.register_version(
            "adder", f"{number}.0.0", runtime="echo", config={"answer": answer}
        )
    await client.create_endpoint("sums", model="adder", version="1.0.0")


async def rolled_out(client: Client, to: str) -> dict[str, Any]:
    """How a rollout ended."""
    async with traffic(client, "sums") as asked:
        asked.inputs = "2 + 2"
        started = await client.start_rollout("sums", to=to, steps=STEPS, analysis=QUALITY)
        ended: dict[str, Any] = await client.wait_for_rollout("sums", started["id"])
    assert asked.failed == 0
    return ended


def quality(rollout: dict[str, Any]) -> dict[str, Any]:
    [found] = [verdict for verdict in rollout["verdicts"] if verdict["metric"] == "quality"]
    return dict(found)


async def test_a_candidate_whose_answers_are_found_bad_goes_back_and_one_as_good_goes_on(
    system: System,
):
    client = system.client
    await endpoint_of(client, "4", "5", "4")

    ended = await rolled_out(client, "2.0.0")
    assert (ended["state"], ended["reason"]) == ("aborted", "failed")
    verdict = quality(ended)
    assert (verdict["outcome"], verdict["alpha"]) == ("fail", 0.025)
    assert verdict["e_value"] >= verdict["threshold"] == 40.0
    assert verdict.get("estimate", 1.0) == 1.0, "there is none before both had traffic in the step"
    others = {each["metric"]: each["outcome"] for each in ended["verdicts"]}
    assert "fail" not in (others["error_rate"], others["sample_ratio"])
    endpoint = await client.endpoint("sums")
    assert endpoint["active"] == "1.0.0"

    ended = await rolled_out(client, "3.0.0")
    assert (ended["state"], ended["reason"]) == ("completed", "passed")
    verdict = quality(ended)
    assert (verdict["outcome"], verdict.get("estimate", 0.0)) == ("pass", 0.0)
    assert verdict["candidate_samples"] >= 30

    compared = await client.compare("sums", baseline="1.0.0", candidate="2.0.0")
    good, bad = (compared["versions"][version] for version in ("1.0.0", "2.0.0"))
    assert good["checked"] > 0 == good["bad"]
    assert bad["checked"] == bad["bad"] > 0
    async with httpx.AsyncClient(base_url=system.url) as http:
        scraped = (await http.get("/metrics")).text
    labels = 'endpoint="sums",tenant="default",version='
    assert f'switchback_answers_bad_total{{{labels}"1.0.0"}} 0.0' in scraped
    assert f'switchback_answers_bad_total{{{labels}"2.0.0"}} 0.0' not in scraped


async def test_a_rollout_by_a_check_that_no_gateway_knows_is_refused(system: System):
    client = system.client
    await endpoint_of(client, "4", "4")
    with pytest.raises(Problem) as refused:
        await client.start_rollout("sums", to="2.0.0", analysis={**QUALITY, "check": "wrong"})
    assert (refused.value.status, refused.value.code) == (400, "invalid")
    assert refused.value.fields == {"analysis.check": "no gateway knows wrong; known: right"}
    assert (await client.endpoint("sums"))["rollout"] is None

"""The client's calls about rollouts, and waiting for one without missing a state."""

from __future__ import annotations

from typing import Any

import httpx
import msgspec
import pytest

from switchback.client import Client, Problem
from tests.client.gateway import Answer, Gateway, events_answer, problem

ROLLOUTS = "/api/v1/endpoints/chat/rollouts"
STEPS = [{"weight": 10, "hold_s": 5}]


def rollout(state: str, position: int) -> Answer:
    return Answer(
        headers={"Switchback-Position": str(position)},
        body={"id": "r1", "state": state, "position": position},
    )


def event(position: int, name: str, rollout_id: str = "r1") -> str:
    document = {
        "position": position,
        "type": f"switchback.endpoint.{name}.v1",
        "data": {"rollout_id": rollout_id} if rollout_id else {},
    }
    return f"id: {position}\ndata: {msgspec.json.encode(document).decode()}\n\n"


async def test_a_rollout_is_asked_for_with_what_is_given_and_nothing_else(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(rollout("running", 4), rollout("running", 5))
    await client.start_rollout("chat", to="2.0.0")
    assert (gateway.last.method, gateway.last.path) == ("POST", ROLLOUTS)
    assert gateway.last.body == {"to": "2.0.0"}
    await client.start_rollout("chat", to="2.0.0", steps=STEPS, analysis={"alpha": 0.01})
    assert gateway.last.body == {"to": "2.0.0", "steps": STEPS, "analysis": {"alpha": 0.01}}
    assert client.min_position == 5


@pytest.mark.parametrize(
    ("verb", "arguments", "body"),
    [
        ("promote", {}, {"to": "next"}),
        ("promote", {"to": "full"}, {"to": "full"}),
        ("promote", {"from_step": 0}, {"to": "next", "from_step": 0}),
        ("pause", {}, {}),
        ("resume", {}, {}),
        ("abort", {"reason": "slow"}, {"reason": "slow"}),
    ],
)
async def test_each_verb_is_a_command_of_its_own(
    client: Client, gateway: Gateway, verb: str, arguments: dict[str, Any], body: dict[str, Any]
) -> None:
    gateway.will(httpx.ReadError("connection reset"), rollout("running", 9))
    answer = await getattr(client, f"{verb}_rollout")("chat", "r1", **arguments)
    assert answer["position"] == client.min_position == 9
    assert (gateway.last.method, gateway.last.path) == ("POST", f"{ROLLOUTS}/r1/{verb}")
    assert gateway.last.body == body
    keys = {request.headers["idempotency-key"] for request in gateway.requests}
    assert (len(gateway.requests), len(keys)) == (2, 1)


async def test_comparisons_name_what_is_given(client: Client, gateway: Gateway) -> None:
    gateway.will(Answer(), Answer(), Answer())
    await client.compare("chat")
    assert (gateway.last.path, gateway.last.query) == ("/api/v1/endpoints/chat/compare", {})
    await client.compare("chat", baseline="1.0.0", candidate="2.0.0+b", since_s=60)
    asked = {"baseline": "1.0.0", "candidate": "2.0.0+b", "since_s": "60"}
    assert gateway.last.query == asked
    await client.shadow("chat", since_s=1.5)
    assert gateway.last.path == "/api/v1/endpoints/chat/shadow"
    assert gateway.last.query == {"since_s": "1.5"}


async def test_rollouts_are_listed_over_all_pages(client: Client, gateway: Gateway) -> None:
    gateway.will(
        Answer(body={"items": [{"id": "r2"}], "next": "r2"}),
        Answer(body={"items": [{"id": "r1"}], "next": None}),
    )
    assert [found["id"] async for found in client.rollouts("chat")] == ["r2", "r1"]
    assert gateway.last.query["after"] == "r2"


@pytest.mark.parametrize("state", ["completed", "aborted"])
async def test_waiting_for_a_rollout_that_has_ended_follows_nothing(
    client: Client, gateway: Gateway, state: str
) -> None:
    gateway.will(rollout(state, 8))
    assert (await client.wait_for_rollout("chat", "r1"))["state"] == state
    assert len(gateway.requests) == 1


async def test_a_wait_ends_with_the_rollouts_own_end_over_a_lost_connection(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(
        rollout("running", 8),
        events_answer(event(9, "rollout_advanced"), event(10, "rollout_completed", "r0")),
        httpx.ConnectError("refused"),
        events_answer(
            event(11, "rollout_held"),
            event(12, "alert_raised", ""),
            event(13, "rollout_resumed"),
            event(14, "rollout_completed"),
        ),
        rollout("completed", 14),
    )
    assert (await client.wait_for_rollout("chat", "r1"))["state"] == "completed"
    first, again = gateway.requests[1], gateway.requests[3]
    assert first.query == {"entity": "endpoint/chat"}
    assert (first.headers["last-event-id"], again.headers["last-event-id"]) == ("8", "10")
    assert gateway.last.headers["switchback-min-position"] == "14"


async def test_a_wait_that_asks_for_holds_ends_with_one(client: Client, gateway: Gateway) -> None:
    gateway.will(
        rollout("running", 8),
        events_answer(event(9, "rollout_advanced"), event(10, "rollout_held")),
        rollout("held", 10),
    )
    held = await client.wait_for_rollout("chat", "r1", until={"held", "completed", "aborted"})
    assert held["state"] == "held"


async def test_after_a_wait_for_an_abort_reads_see_the_traffic_returned(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(
        rollout("running", 8),
        events_answer(event(9, "rollout_aborted"), event(10, "rolled_back", "")),
        rollout("aborted", 9),
    )
    assert (await client.wait_for_rollout("chat", "r1"))["state"] == "aborted"
    assert client.min_position == 10


async def test_a_wait_for_a_rollout_that_is_not_there_is_refused(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(problem("not_found", 404))
    with pytest.raises(Problem, match="not_found"):
        await client.wait_for_rollout("chat", "r1")

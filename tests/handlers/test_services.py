"""Commands over NATS mean what they mean over HTTP."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from events.errors import RemoteFailure
from tests.system import System


async def ask(system: System, subject: str, **payload: object) -> dict[str, object]:
    bus = system.process.jetstream.bus
    reply = await bus.request(subject, json.dumps(payload).encode(), timeout_s=10)
    return json.loads(reply)


async def test_a_life_by_messages_alone(system: System):
    await ask(system, "cmd.default.model.register", model="fraud")
    for version in ("1.0.0", "2.0.0"):
        await ask(
            system,
            "cmd.default.model.register_version",
            model="fraud",
            version=version,
            runtime="echo",
        )
    made = await ask(
        system, "cmd.default.endpoint.create", endpoint="scores", model="fraud", version="1.0.0"
    )
    assert made["active"] == "1.0.0"
    swap = await ask(system, "cmd.default.endpoint.swap", endpoint="scores", to="2.0.0")
    ended = await system.process.operations.swap_ended(
        "default", endpoint="scores", swap_id=str(swap["id"])
    )
    assert ended.state == "completed"
    back = await ask(system, "cmd.default.endpoint.roll_back", endpoint="scores", reason="worse")
    assert (back["from"], back["to"]) == ("2.0.0", "1.0.0")
    assert (await system.client.infer("scores", [1])).version == "1.0.0"
    drained = await ask(system, "cmd.system.node.drain", node="local")
    assert drained["changed"] is True


async def test_a_rollout_is_started_and_steered_by_messages(system: System):
    await ask(system, "cmd.default.model.register", model="fraud")
    for version in ("1.0.0", "2.0.0"):
        registered = {"model": "fraud", "version": version, "runtime": "echo"}
        await ask(system, "cmd.default.model.register_version", **registered)
    endpoint = {"endpoint": "scores", "model": "fraud", "version": "1.0.0"}
    await ask(system, "cmd.default.endpoint.create", **endpoint)
    steps = [{"weight": weight, "hold_s": 3600} for weight in (10, 50)]
    started = await ask(
        system, "cmd.default.endpoint.start_rollout", endpoint="scores", to="2.0.0", steps=steps
    )
    assert (started["state"], started["weight"]) == ("running", 10)
    named = {"endpoint": "scores", "rollout_id": started["id"]}
    held = await ask(system, "cmd.default.endpoint.pause_rollout", **named)
    assert held["held_reason"] == "paused"
    resumed = await ask(system, "cmd.default.endpoint.resume_rollout", **named)
    assert resumed["state"] == "running"
    promoted = await ask(system, "cmd.default.endpoint.promote_rollout", **named, from_step=0)
    assert (promoted["step"], promoted["weight"]) == (1, 50)
    aborted = await ask(system, "cmd.default.endpoint.abort_rollout", **named, reason="worse")
    assert (aborted["state"], aborted["detail"]) == ("aborted", "worse")
    at = await system.client.endpoint("scores", at=int(str(aborted["position"])))
    assert at["policy"]["split"] == {"1.0.0": 100.0}


async def test_a_repeated_command_id_happens_once(system: System):
    payload = {"model": "fraud", "command_id": str(uuid4())}
    first = await ask(system, "cmd.default.model.register", **payload)
    again = await ask(system, "cmd.default.model.register", **payload)
    assert again == first


@pytest.mark.parametrize(
    ("subject", "payload", "code"),
    [
        ("cmd.default.model.register", {"model": "a.b"}, "invalid"),
        ("cmd.default.model.register", {"model": "fraud", "colour": "red"}, "invalid"),
        ("cmd.default.model.register", {}, "invalid"),
        ("cmd.default.model.explode", {}, "not_found"),
        ("cmd.default.endpoint.roll_back", {"endpoint": "nowhere"}, "not_found"),
        ("cmd.default.endpoint.start_rollout", {"endpoint": "e"}, "invalid"),
        (
            "cmd.default.endpoint.start_rollout",
            {"endpoint": "e", "to": "2.0.0", "steps": []},
            "invalid",
        ),
        (
            "cmd.default.endpoint.start_rollout",
            {"endpoint": "e", "to": "2.0.0", "analysis": {"metric": "beauty"}},
            "invalid",
        ),
        ("cmd.default.endpoint.start_rollout", {"endpoint": "e", "to": "2.0.0"}, "not_found"),
        (
            "cmd.default.endpoint.promote_rollout",
            {"endpoint": "e", "rollout_id": "r", "from_step": -1},
            "invalid",
        ),
        ("cmd.default.endpoint.abort_rollout", {"endpoint": "e", "rollout_id": "r"}, "not_found"),
        ("cmd.-bad.model.register", {"model": "fraud"}, "invalid"),
    ],
)
async def test_bad_messages_are_refused_and_leave_no_event(
    system: System,
    subject: str,
    payload: dict[str, object],
    code: str,
):
    before = await system.process.jetstream.events.position()
    with pytest.raises(RemoteFailure) as refused:
        await ask(system, subject, **payload)
    assert refused.value.code == code
    assert await system.process.jetstream.events.position() == before

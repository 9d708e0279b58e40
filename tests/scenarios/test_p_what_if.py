"""What-if: a system's own log, exported with its traffic, asked what another policy had done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from events.recordings import export_recording
from switchback.client import Client
from tests.cli.running import Ended, cli
from tests.scenarios.traffic import counted, traffic
from tests.system import System

pytestmark = pytest.mark.slow

NEVER = 1e-300
"""No evidence is strong enough for this alpha, however fast the machine collects it."""
STEPS = [{"weight": weight, "hold_s": 1.0, "min_samples": 10} for weight in (25, 50, 100)]


async def rolled_out(system: System, *, error_rate: float, **plan: Any) -> dict[str, Any]:
    """Endpoint `scores` from 1.0.0 to 2.0.0, which fails so often; how that ended."""
    client: Client = system.client
    await client.register_model("fraud")
    for version, rate in (("1.0.0", 0.0), ("2.0.0", error_rate)):
        config = {"error_rate": rate, "seed": 7}
        await client.register_version("fraud", version, runtime="echo", config=config)
    await client.create_endpoint("scores", model="fraud", version="1.0.0")
    async with traffic(client, "scores") as asked:
        started = await client.start_rollout("scores", to="2.0.0", steps=STEPS, **plan)
        ended: dict[str, Any] = await client.wait_for_rollout("scores", started["id"])
    await counted(system, "scores", requests=asked.failed + asked.answered.total())
    return ended


async def exported(system: System, file: Path) -> Path:
    with file.open("xb") as out:
        jetstream = system.process.jetstream
        await export_recording(jetstream.events, jetstream.traffic, out)
    return file


def asked(log: Path, policy: dict[str, Any], *options: str) -> Ended:
    file = log.with_name("policy.json")
    file.write_bytes(msgspec.json.encode(policy))
    return cli("what-if", log, "--policy", file, "--json", *options)


@pytest.mark.parametrize(("error_rate", "state"), [(0.0, "completed"), (0.3, "aborted")])
async def test_p04_what_if_under_the_same_and_under_another_policy(
    system: System, tmp_path: Path, error_rate: float, state: str
):
    ended = await rolled_out(system, error_rate=error_rate, analysis={"margin": 0.5})
    assert ended["state"] == state
    log = await exported(system, tmp_path / "log.jsonl")
    (same,) = asked(log, {}).json["rollouts"]
    assert same["rollout"] == ended["id"]
    assert same["recorded"]["state"] == state
    assert same["same"], same
    patient = {"steps": [{"weight": 1, "hold_s": 3600}], "analysis": {"alpha": NEVER}}
    (other,) = asked(log, patient, "--endpoint", "scores").json["rollouts"]
    assert (other["what_if"]["state"], other["what_if"]["acts"]) == ("running", [])
    assert other["what_if"]["unknown_from_s"] is not None
    served = other["what_if"]["served"]
    assert served["estimated"] == served["requests"] < same["recorded"]["served"]["requests"]


async def test_p05_a_back_test_fails_when_a_policy_lets_a_bad_version_through(
    system: System, tmp_path: Path
):
    """A bad version that was found out by people: a lax policy is through before anything shows."""
    ended = await rolled_out(system, error_rate=0.1, analysis={"margin": 0.5, "alpha": 1e-9})
    logs = tmp_path / "logs"
    logs.mkdir()
    log = await exported(system, logs / "incident.jsonl")
    (logs / "incident.expect.json").write_bytes(msgspec.json.encode({ended["id"]: "bad"}))
    lax = {"steps": [{"weight": 25, "hold_s": 0.0}], "analysis": {"alpha": NEVER, "margin": 1.0}}
    through = asked(logs, lax)
    assert through.code == 1
    assert f"{log.name}: 2.0.0 is bad" in through.err
    assert through.json["let_through"] == 1
    strict = asked(logs, {"analysis": {"margin": 0.01}})
    assert strict.code == 0, strict.err
    assert strict.json["let_through"] == 0

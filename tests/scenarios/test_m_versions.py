"""Model versions: registered, served, switched, and proved. Through HTTP, as a team would."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from pathlib import Path

import pytest

from engine.runtimes import describe_artifact
from switchback.client import Client, Problem
from tests.system import System

MIB = 1024 * 1024


async def registered(client: Client, model: str, **configs: dict[str, object]) -> None:
    """A model with an echo version for each keyword: `v1_0_0={...}`."""
    await client.register_model(model)
    for name, config in configs.items():
        version = name.removeprefix("v").replace("_", ".")
        await client.register_version(
            model, version, runtime="echo", config={"answer": version, **config}
        )


async def served(client: Client, endpoint: str, requests: int) -> Counter[str]:
    """How often each version answered; every answer must be the version's own."""
    answers = await asyncio.gather(
        *(client.infer(endpoint, [n], key=f"user-{n}") for n in range(requests))
    )
    for n, answer in enumerate(answers):
        assert answer.outputs == {"answer": answer.version, "inputs": [n]}
    return Counter(answer.version for answer in answers)


async def test_m01_split_swap_to_the_better_and_roll_back(system: System):
    client = system.client
    await registered(client, "fraud", v1_0_0={"error_rate": 0.0}, v2_0_0={})
    await client.create_endpoint("scores", model="fraud", version="1.0.0")
    await client.set_policy("scores", {"split": {"1.0.0": 90, "2.0.0": 10}})
    split = await served(client, "scores", 500)
    assert 20 <= split["2.0.0"] <= 90
    assert split.total() == 500
    swapped = await client.swap("scores", to="2.0.0")
    assert swapped["state"] == "completed"
    assert await served(client, "scores", 50) == {"2.0.0": 50}
    rolled_back = await client.rollback("scores", reason="worse")
    assert (rolled_back["from"], rolled_back["to"]) == ("2.0.0", "1.0.0")
    assert await served(client, "scores", 50) == {"1.0.0": 50}


async def test_m06_three_versions_at_once_do_not_interfere(system: System):
    client = system.client
    await registered(client, "fraud", v1_0_0={}, v2_0_0={}, v3_0_0={})
    await client.create_endpoint("scores", model="fraud", version="1.0.0")
    await client.set_policy("scores", {"split": {"1.0.0": 1, "2.0.0": 1, "3.0.0": 1}})
    assert set(await served(client, "scores", 120)) == {"1.0.0", "2.0.0", "3.0.0"}
    node = await client.node("local")
    assert {resident["version"] for resident in node["resident"]} == {"1.0.0", "2.0.0", "3.0.0"}
    assert node["memory_used_bytes"] == sum(r["memory_bytes"] for r in node["resident"]) > 0
    await client.set_policy("scores", {"split": {"1.0.0": 1, "2.0.0": 1}})
    retired = await client.retire_version("fraud", "3.0.0")
    await system.process.routing.reach(retired["position"] + 1)
    client.min_position = system.process.routing.position
    node = await client.node("local")
    assert {resident["version"] for resident in node["resident"]} == {"1.0.0", "2.0.0"}
    assert set(await served(client, "scores", 60)) == {"1.0.0", "2.0.0"}


async def test_m07_rules_by_time_and_attributes_choose_the_version(system: System):
    """Boundaries, midnight and daylight saving are in tests/routing; here, the way through HTTP."""
    client = system.client
    await registered(client, "fraud", v1_0_0={}, v2_0_0={}, v3_0_0={})
    await client.create_endpoint("scores", model="fraud", version="1.0.0")
    office = {"days": ["mon"], "from": "09:00", "to": "17:00", "timezone": "Europe/Paris"}
    changed = await client.set_policy(
        "scores",
        {
            "split": {"1.0.0": 100},
            "rules": [
                {"name": "beta", "when": {"attributes": {"tier": "beta"}}, "split": {"3.0.0": 1}},
                {"name": "office", "when": office, "split": {"2.0.0": 1}},
            ],
        },
    )
    beta = await client.infer("scores", [1], key="u", attributes={"tier": "beta"})
    assert (beta.version, beta.rule) == ("3.0.0", "beta")
    created_later = "2099-01-0{}T{}:00Z"  # 2099-01-05 is a Monday; Paris is at UTC+1
    for moment, version, rule in (
        (created_later.format(5, "07:59"), "1.0.0", None),
        (created_later.format(5, "08:00"), "2.0.0", "office"),
        (created_later.format(5, "15:59"), "2.0.0", "office"),
        (created_later.format(5, "16:00"), "1.0.0", None),
        (created_later.format(6, "09:00"), "1.0.0", None),
    ):
        explained = await client.explain("scores", key="u", at=moment)
        assert (explained["version"], explained["rule"]) == (version, rule), moment
        assert explained["position"] == changed["position"]


async def test_m08_lineage_is_recorded_and_guarded(system: System):
    client = system.client
    await client.register_model("base")
    await client.register_model("tuned")
    await client.register_version("base", "1.0.0", runtime="echo")
    await client.register_version("tuned", "1.0.0", runtime="echo", parent="base@1.0.0")
    await client.register_version("tuned", "2.0.0", runtime="echo", parent="tuned@1.0.0")
    grandchild = await client.lineage("tuned", "2.0.0")
    assert grandchild == {"ancestors": ["tuned@1.0.0", "base@1.0.0"], "descendants": []}
    base = await client.lineage("base", "1.0.0")
    assert base == {"ancestors": [], "descendants": ["tuned@1.0.0", "tuned@2.0.0"]}
    before = client.min_position
    for parent in ("base@9.9.9", "nowhere@1.0.0", "tuned@3.0.0", "no-version", "a.b@1.0.0"):
        with pytest.raises(Problem) as refused:
            await client.register_version("tuned", "3.0.0", runtime="echo", parent=parent)
        assert refused.value.code == "invalid"
        assert "parent" in refused.value.fields
    assert await system.process.jetstream.events.position() == before


def python_artifact(root: Path, name: str, ballast_bytes: int) -> dict[str, object]:
    """A version that takes memory, in an artifact directory under the configured root."""
    directory = root / name
    directory.mkdir(parents=True)
    (directory / "ballast.py").write_text(
        f"def load(artifact):\n"
        f"    ballast = bytearray(b'x' * {ballast_bytes})\n"
        f"    return lambda inputs, parameters: {{'answer': {name!r}, 'size': len(ballast)}}\n"
    )
    artifact = describe_artifact(directory)
    return {"uri": artifact.uri, "sha256": artifact.sha256, "size_bytes": artifact.size_bytes}


async def test_m09_memory_is_measured_limited_and_freed(system: System):
    client, root = system.client, system.settings.artifact_roots[0]
    await client.register_model("heavy")
    for version, ballast in (("1.0.0", 50 * MIB), ("2.0.0", 100 * MIB)):
        await client.register_version(
            "heavy",
            version,
            runtime="python",
            config={"factory": "ballast:load"},
            artifact=python_artifact(root, version, ballast),
        )
    await client.create_endpoint("scores", model="heavy", version="1.0.0")
    swapped = await client.swap("scores", to="2.0.0")
    assert swapped["state"] == "completed", swapped
    answer = await client.infer("scores", [1])
    assert answer.outputs == {"answer": "2.0.0", "size": 100 * MIB}
    client.min_position = swapped["position"]
    node = await client.node("local")
    sizes = {resident["version"]: resident["memory_bytes"] for resident in node["resident"]}
    assert sizes["1.0.0"] > 50 * MIB
    assert sizes["2.0.0"] > 100 * MIB
    await client.register_version(
        "heavy", "9.0.0", runtime="echo", memory_bytes=system.settings.node_memory_bytes + 1
    )
    failed = await client.swap("scores", to="9.0.0")
    assert (failed["state"], failed["reason"]) == ("failed", "load_failed")
    assert "memory" in failed["detail"]
    assert (await client.infer("scores", [1])).version == "2.0.0"


async def test_m10_a_slow_swap_leaves_the_old_version_serving(system: System):
    client = system.client
    await registered(client, "fraud", v1_0_0={}, v2_0_0={"load_ms": 800})
    await client.create_endpoint("scores", model="fraud", version="1.0.0")
    swap = asyncio.create_task(client.swap("scores", to="2.0.0"))
    during: Counter[str] = Counter()
    while not swap.done():
        during += await served(client, "scores", 5)
    assert (await swap)["state"] == "completed"
    assert during["1.0.0"] >= 5
    assert await served(client, "scores", 20) == {"2.0.0": 20}


@pytest.mark.parametrize(
    ("config", "timeout_s", "reason"),
    [
        ({"load_error": "no such weights"}, 30, "load_failed"),
        ({"load_ms": 3_600_000}, 0.5, "timeout"),
    ],
)
async def test_m10_a_version_that_does_not_become_ready_never_takes_traffic(
    system: System, config: dict[str, object], timeout_s: float, reason: str
):
    client = system.client
    await registered(client, "fraud", v1_0_0={}, v2_0_0=config)
    await client.create_endpoint("scores", model="fraud", version="1.0.0")
    failed = await client.swap("scores", to="2.0.0", timeout_s=timeout_s)
    assert (failed["state"], failed["reason"]) == ("failed", reason)
    assert await served(client, "scores", 20) == {"1.0.0": 20}
    again = await client.request_swap("scores", to="2.0.0", timeout_s=timeout_s)
    assert again["state"] == "requested"
    assert again["id"] != failed["id"]


async def test_m11_many_operators_at_once_get_one_order(system: System):
    client = system.client
    await registered(client, "fraud", v1_0_0={}, v2_0_0={}, v3_0_0={})
    await client.create_endpoint("scores", model="fraud", version="1.0.0")
    kinds = itertools.cycle(
        [
            lambda: client.swap("scores", to="2.0.0", timeout_s=10),
            lambda: client.swap("scores", to="3.0.0", timeout_s=10),
            lambda: client.rollback("scores"),
            lambda: client.set_policy("scores", {"split": {"1.0.0": 50, "3.0.0": 50}}),
        ]
    )
    registrations = [
        client.register_version("fraud", f"4.{n}.0", runtime="echo") for n in range(20)
    ]
    commands = [next(kinds)() for _ in range(40)]
    outcomes = await asyncio.gather(*commands, *registrations, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            assert isinstance(outcome, Problem), outcome
            assert outcome.code == "conflict"
    history = [event async for event in client.events(entity="endpoint/scores")]
    positions = [event["position"] for event in history]
    assert positions == sorted(set(positions))
    told = {outcome["position"] for outcome in outcomes if isinstance(outcome, dict)}
    everything = {event["position"] async for event in client.events()}
    assert told <= everything
    versions = {version["version"] async for version in client.versions("fraud")}
    assert {f"4.{n}.0" for n in range(20)} <= versions
    end = await client.endpoint("scores")
    assert end == await client.endpoint("scores", at=client.min_position)
    assert set(await served(client, "scores", 60)) <= set(end["policy"]["split"])

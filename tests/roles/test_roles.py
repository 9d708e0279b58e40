"""The same code as separate processes: two gateways, two nodes, a projector, a reactor."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from switchback.client import Client
from tests.cli.running import SWITCHBACK

pytestmark = pytest.mark.slow
LEASE_SECONDS = 2.0
BOTH = {"1.0.0", "2.0.0"}


class Cluster(msgspec.Struct, frozen=True, kw_only=True):
    """Clients of the two gateways, and every process by name."""

    one: Client
    two: Client
    processes: dict[str, subprocess.Popen[str]]
    environment: dict[str, str]
    directory: Path


@contextmanager
def served(
    role: str, directory: Path, environment: dict[str, str]
) -> Iterator[subprocess.Popen[str]]:
    """A process that plays a role, once it says so."""
    with (directory.parent / f"{directory.name}.log").open("w") as log:
        process = subprocess.Popen(
            [SWITCHBACK, "serve", role, "--data-dir", str(directory), "--port", "0"],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith(f"serving {role}"), (said, Path(log.name).read_text())
        yield process
    finally:
        process.kill()
        process.wait()


@pytest_asyncio.fixture
async def cluster(
    tmp_path: Path, nats_url: str, postgres_dsn: str, redis_url: str
) -> AsyncIterator[Cluster]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "SWITCHBACK_NATS_URL": nats_url,
        "SWITCHBACK_POSTGRES_DSN": postgres_dsn,
        "SWITCHBACK_REDIS_URL": redis_url,
        "SWITCHBACK_SECRET": "shared by every gateway of this cluster",
        "SWITCHBACK_LEASE_TTL_S": str(LEASE_SECONDS),
    }
    async with AsyncExitStack() as stack:

        async def start(name: str) -> subprocess.Popen[str]:
            own = {**environment, "SWITCHBACK_NODE_ID": name, "SWITCHBACK_GATEWAY_ID": name}
            process = served(name.partition("-")[0], tmp_path / name, own)
            return await asyncio.to_thread(stack.enter_context, process)

        first = await start("projector")  # makes the streams and tables
        others = ("reactor", "node-1", "node-2", "gateway-1", "gateway-2")
        started = await asyncio.gather(*(start(name) for name in others))
        processes = {"projector": first, **dict(zip(others, started, strict=True))}
        one = await stack.enter_async_context(Client.from_data_dir(tmp_path / "gateway-1"))
        two = await stack.enter_async_context(Client.from_data_dir(tmp_path / "gateway-2"))
        yield Cluster(
            one=one, two=two, processes=processes, environment=environment, directory=tmp_path
        )


async def prepared(client: Client) -> None:
    await client.register_model("fraud")
    for version in ("1.0.0", "2.0.0"):
        await client.register_version("fraud", version, runtime="echo")
    await client.create_endpoint("scores", model="fraud", version="1.0.0")


async def versions(client: Client, requests: int = 30) -> set[str]:
    answers = await asyncio.gather(
        *(client.infer("scores", [n], key=f"user-{n}") for n in range(requests))
    )
    return {answer.version for answer in answers}


async def test_a_move_is_complete_on_every_gateway_when_it_is_answered(cluster: Cluster):
    one, two = cluster.one, cluster.two
    await prepared(one)
    assert await versions(two) == {"1.0.0"}
    node_states = {node["id"]: node["resident"] async for node in one.nodes()}
    assert {name for name, resident in node_states.items() if resident} == {"node-1", "node-2"}
    swapped = await one.swap("scores", to="2.0.0")
    assert swapped["state"] == "completed"
    assert await versions(two) == await versions(one) == {"2.0.0"}
    await two.rollback("scores")
    assert await versions(one) == await versions(two) == {"1.0.0"}
    receipt = (await one.infer("scores", [1])).receipt
    assert (await two.explain_receipt(receipt))["valid"] is True


async def test_a_dead_gateway_holds_up_no_rollback_for_longer_than_its_lease(cluster: Cluster):
    one = cluster.one
    await prepared(one)
    await one.swap("scores", to="2.0.0")
    cluster.processes["gateway-2"].kill()
    rolled_back = await one.rollback("scores")
    assert rolled_back["to"] == "1.0.0"
    assert await versions(one) == {"1.0.0"}


async def test_a_dead_node_is_lost_on_the_log_and_the_other_serves(cluster: Cluster):
    one = cluster.one
    await prepared(one)
    cluster.processes["node-1"].kill()
    async with asyncio.timeout(30):
        while (await one.node("node-1"))["state"] != "lost":
            await one.register_model("tick")  # moves the position that reads wait for
    assert await versions(one) == {"1.0.0"}
    assert (await one.swap("scores", to="2.0.0"))["state"] == "completed"
    assert (await one.node("node-2"))["state"] == "joined"


async def test_a_node_that_stops_cleanly_fails_no_request(cluster: Cluster):
    one = cluster.one
    await prepared(one)
    node = cluster.processes["node-1"]
    asked = asyncio.create_task(versions(one, requests=200))
    node.terminate()
    assert await asyncio.to_thread(node.wait, 20) == 0
    assert await asked == {"1.0.0"}
    assert await versions(one) == {"1.0.0"}
    async with asyncio.timeout(20):
        while (await one.node("node-1"))["state"] != "left":
            await one.register_model("tick")


async def test_a_projector_killed_under_load_is_taken_over_by_another(cluster: Cluster):
    one = cluster.one
    await prepared(one)

    async def register(numbers: range) -> None:
        for n in numbers:
            await one.register_model(f"m-{n}")

    working = asyncio.create_task(register(range(100)))
    cluster.processes["projector"].kill()
    await working
    working = asyncio.create_task(register(range(100, 200)))
    with served("projector", cluster.directory / "second", cluster.environment) as second:
        assert (await one.model("m-99"))["name"] == "m-99"
        second.kill()
    await working
    with served("projector", cluster.directory / "third", cluster.environment):
        assert len([model async for model in one.models()]) == 201
        checked = await asyncio.to_thread(
            subprocess.run,
            [SWITCHBACK, "verify", "--data-dir", str(cluster.directory / "verify")],
            env=cluster.environment,
            capture_output=True,
            text=True,
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_a_reactor_killed_in_a_rollout_is_taken_over_and_judges_what_came_before(
    cluster: Cluster,
):
    """Two gateways tell of the traffic; the reactor that ends the rollout saw none of its start."""
    one, two = cluster.one, cluster.two
    await prepared(one)
    steps = [{"weight": weight, "hold_s": 1.0, "min_samples": 5} for weight in (30, 60)]
    started = await one.start_rollout("scores", to="2.0.0", steps=steps, analysis={"margin": 0.5})
    await one.pause_rollout("scores", started["id"])  # so that the first reactor takes no step
    assert await versions(one, requests=100) == await versions(two, requests=100) == BOTH
    cluster.processes["reactor"].kill()
    with served("reactor", cluster.directory / "reactor-2", cluster.environment):
        await one.resume_rollout("scores", started["id"])
        ended = asyncio.create_task(two.wait_for_rollout("scores", started["id"]))
        while not ended.done():
            await asyncio.gather(versions(one), versions(two))
        rollout = await ended
    assert rollout["state"] == "completed"
    history = [event async for event in one.events(entity="endpoint/scores")]
    passed = next(event["data"] for event in history if "rollout_advanced" in event["type"])
    assert passed["reason"] == "passed"
    errors = next(v for v in passed["verdicts"] if v["metric"] == "error_rate")
    assert errors["candidate_samples"] + errors["baseline_samples"] >= 200
    assert await versions(one) == await versions(two) == {"2.0.0"}

"""Language versions on nodes in processes of their own, which stop and die under streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
import pytest_asyncio

from tests.faults.roles import NODE, Roles, roles
from tests.faults.streams import STREAMS, answered, begun
from tests.scenarios.language import Facts, facts
from tests.upstream.server import HELLO, answers, mock_upstream

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]
ENDLESS: dict[str, Any] = {"max_tokens": 4_000, "ignore_eos": True}
SHORT: dict[str, Any] = {"max_tokens": 50, "ignore_eos": True}
LONG: dict[str, Any] = {"max_tokens": 150, "ignore_eos": True}
SLOWLY = {"rehearsal": {"step_ms": 20.0}}
SOONER_S = 40.0
"""Whoever noticed a death by the deadline of a request alone would need a minute."""


@pytest_asyncio.fixture(scope="module")
async def playing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Facts]:
    directory = tmp_path_factory.mktemp("roles")
    async with roles(directory) as playing, facts(playing, **SLOWLY) as asked:
        yield asked


@pytest_asyncio.fixture
async def asked(playing: Facts) -> AsyncIterator[Facts]:
    """With one node, on which nothing is under way, before and after."""
    yield playing
    cluster = cluster_of(playing)
    for name in [name for name in cluster.processes if name.startswith("node-")]:
        if name != NODE:
            await cluster.kill(name)
            await cluster.state_of(name, "lost")
    if NODE not in cluster.processes:
        await cluster.start(NODE)
    told = await playing.until_idle()
    assert told["kv_blocks_used"] == 0


def cluster_of(asked: Facts) -> Roles:
    found: Any = asked.system
    return found


async def arrived(asked: Facts, *nodes: str) -> int:
    """Requests that have ever come to these nodes."""
    told = [(await asked.system.client.batching(node))["items"] for node in nodes]
    return sum(
        each["num_requests_running"]
        + each["num_requests_waiting"]
        + sum(each["requests_ended"].values())
        for items in told
        for each in items
    )


async def test_streams_and_whole_answers_come_over_the_bus_in_order_and_counted(asked: Facts):
    alone = answered(await asked.ask(**SHORT))
    assert alone[1] == 50
    whole, streams = await asyncio.gather(
        asyncio.gather(*(asked.ask(**SHORT) for _ in range(STREAMS))), begun(asked, **SHORT)
    )
    assert [answered(answer) for answer in whole] == [alone] * STREAMS
    assert await asyncio.gather(*(stream.end() for stream in streams)) == [alone] * STREAMS


@pytest.mark.parametrize("how", ["stream", "whole"])
async def test_a_client_that_leaves_frees_blocks_on_the_node(asked: Facts, how: str):
    if how == "stream":
        streams = await begun(asked, **ENDLESS)
        assert (await asked.statistics())["num_requests_running"] == STREAMS
        for stream in streams:
            await stream.stream.close()
    else:
        waiting = [asyncio.create_task(asked.ask(**ENDLESS)) for _ in range(STREAMS)]
        await asked.when(lambda told: told["num_requests_running"] == STREAMS)
        for request in waiting:
            request.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    assert (await asked.until_idle())["kv_blocks_used"] == 0


async def test_an_upstream_is_asked_straight_from_a_gateway_without_a_node(asked: Facts):
    client, gateway = asked.system.client, cluster_of(asked).processes["gateway-1"]
    async with mock_upstream() as mock:
        mock.behaviours = [answers(HELLO)]
        config = {"url": mock.url, "model": "theirs"}
        await client.register_model("theirs")
        await client.register_version("theirs", "1.0.0", runtime="upstream", config=config)
        await client.create_endpoint("theirs", model="theirs", version="1.0.0")
        answer = await asked.openai.chat.completions.create(
            model="theirs", messages=[{"role": "user", "content": "Hello?"}]
        )
        assert answer.choices[0].message.content == "Hello"
        [exchange] = [each for each in mock.requests if "POST" in each.line]
        _, port = exchange.writer.get_extra_info("peername")
        ours = psutil.Process(gateway.pid).net_connections("tcp4")
        assert port in {connection.laddr.port for connection in ours}


async def test_streams_of_a_node_that_dies_fail_and_whole_answers_come_from_another(asked: Facts):
    cluster = cluster_of(asked)
    await cluster.start("node-2")
    before = await arrived(asked, NODE, "node-2")
    streams = await begun(asked, **LONG)
    whole = [asyncio.create_task(asked.ask(**SHORT)) for _ in range(STREAMS)]
    while await arrived(asked, NODE, "node-2") < before + 2 * STREAMS:
        pass
    await cluster.kill("node-2")
    async with asyncio.timeout(SOONER_S):
        endings = await asyncio.gather(*(stream.end() for stream in streams))
        answers = [answered(answer) for answer in await asyncio.gather(*whole)]
    assert len(set(answers)) == 1
    complete = [ending for ending in endings if ending != "unavailable"]
    assert 0 < len(complete) < STREAMS
    assert {(text[: len(answers[0][0])], tokens) for text, tokens in complete} == {
        (answers[0][0], LONG["max_tokens"])
    }


async def test_when_the_only_node_dies_requests_wait_for_it_to_come_back(asked: Facts):
    cluster = cluster_of(asked)
    streams = await begun(asked, **ENDLESS)
    whole = [asyncio.create_task(asked.ask(**LONG)) for _ in range(STREAMS)]
    await asked.when(lambda told: told["num_requests_running"] > STREAMS)
    await cluster.kill(NODE)
    coming = asyncio.create_task(cluster.start(NODE))
    async with asyncio.timeout(SOONER_S):
        endings = await asyncio.gather(*(stream.end() for stream in streams))
        assert endings == ["unavailable"] * STREAMS
        assert len({answered(answer) for answer in await asyncio.gather(*whole)}) == 1
    await coming


async def test_a_node_that_stops_finishes_its_streams_and_then_ends(asked: Facts):
    cluster = cluster_of(asked)
    before = await arrived(asked, NODE)
    streams = await begun(asked, **LONG)
    whole = [asyncio.create_task(asked.ask(**LONG)) for _ in range(STREAMS)]
    while await arrived(asked, NODE) < before + 2 * STREAMS:
        pass
    assert await cluster.stop(NODE) == 0
    endings = await asyncio.gather(*(stream.end() for stream in streams))
    assert endings == [answered(answer) for answer in await asyncio.gather(*whole)]

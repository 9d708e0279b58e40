"""Upstreams as gateways ask them: no node in between, but never before one has loaded them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio
from prometheus_client import CollectorRegistry

from engine.decisions import model
from engine.runtimes import RuntimeSettings
from handlers.executions import (
    DeadlineExceeded,
    Execution,
    InferenceFailed,
    NotServed,
    RequestRefused,
    RequestTimedOut,
    VersionFailed,
    VersionOverloaded,
    VersionUnavailable,
)
from handlers.upstream_metrics import UpstreamMetrics
from handlers.upstreams import Upstreams
from tests.handlers.world import FRAUD, World, opened, ref
from tests.upstream.server import (
    HELLO,
    Behaviour,
    MockUpstream,
    answers,
    chunk,
    cut,
    stalls,
    stream_bytes,
    streams,
)
from tests.upstream.test_runtime import BUSY, REFUSED

HI = {"messages": [{"role": "user", "content": "Hi"}]}
SOON_SECONDS = 10.0
"""No test waits so long."""


def asking(*, timeout_s: float = 5.0, **parameters: Any) -> Execution:
    return Execution(inputs=HI, parameters=parameters, timeout_s=timeout_s, request_id="request-1")


@pytest_asyncio.fixture
async def world(mock: MockUpstream) -> AsyncIterator[World]:
    """Two versions on the mock, the first of which the endpoint routes to; a node has both."""
    async with opened() as world:
        await world.register("0.1.0", "0.2.0")
        for version in ("1.0.0", "2.0.0"):
            await register(world, version, url=mock.url)
        await world.join("node-1", "0.1.0", "1.0.0", "2.0.0")
        await world.create("1.0.0")
        yield world


@pytest_asyncio.fixture
async def upstreams(world: World) -> AsyncIterator[Upstreams]:
    upstreams = Upstreams(routing=world.routing, settings=RuntimeSettings())
    yield upstreams
    await upstreams.close()


async def register(world: World, version: str, *, url: str, **config: Any) -> None:
    command = model.RegisterVersion(
        version=version,
        runtime="upstream",
        config={"url": url, "model": version, "attempts_max": 1, **config},
        runtimes=frozenset({"upstream"}),
    )
    await world.do(FRAUD, command)


async def outcome(upstreams: Upstreams, execution: Execution | None = None) -> InferenceFailed:
    with pytest.raises(InferenceFailed) as whole:
        await upstreams.execute(ref("1.0.0"), execution or asking())
    return whole.value


async def test_an_upstream_is_asked_with_the_requests_id(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    executed = await upstreams.execute(ref("1.0.0"), asking(top_k=5))
    assert executed.outputs == {"choices": HELLO["choices"], "usage": HELLO["usage"]}
    assert executed.runtime_ms > 0
    [request] = mock.requests
    assert request.json == HI | {"model": "1.0.0", "top_k": 5}
    assert request.headers["x-request-id"] == "request-1"


async def test_a_stream_comes_in_chunks(mock: MockUpstream, upstreams: Upstreams) -> None:
    mock.behaviours = [streams(chunk("He"), chunk("llo", finish="stop"))]
    got = [one async for one in upstreams.stream(ref("1.0.0"), asking())]
    assert [one.outputs["choices"][0]["delta"]["content"] for one in got] == ["He", "llo"]
    assert 0 < got[0].runtime_ms <= got[1].runtime_ms


async def test_chunks_that_came_in_one_piece_are_told_to_follow_each_other_but_not_their_end(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    mock.behaviours = [streams(chunk("He"), chunk("llo"), chunk(finish="stop"))]
    got = [one async for one in upstreams.stream(ref("1.0.0"), asking())]
    assert [one.is_followed for one in got] == [True, True, False]


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "9.9.9"])
async def test_versions_of_other_runtimes_are_left_to_others(
    mock: MockUpstream, upstreams: Upstreams, version: str
) -> None:
    with pytest.raises(NotServed):
        await upstreams.execute(ref(version), asking())
    with pytest.raises(NotServed):
        await anext(upstreams.stream(ref(version), asking()))
    assert mock.requests == []
    assert upstreams.statistics == {}


async def test_a_version_that_no_node_has_loaded_is_not_asked(
    mock: MockUpstream, world: World, upstreams: Upstreams
) -> None:
    await register(world, "3.0.0", url=mock.url)
    with pytest.raises(NotServed, match="no node has loaded"):
        await upstreams.execute(ref("3.0.0"), asking())
    await upstreams.execute(ref("1.0.0"), asking())
    await world.unloaded("node-1", "1.0.0")
    with pytest.raises(NotServed, match="no node has loaded"):
        await upstreams.execute(ref("1.0.0"), asking())
    await world.loaded("node-1", "1.0.0")
    await upstreams.execute(ref("1.0.0"), asking())
    assert len(mock.requests) == 2


async def test_one_client_serves_all_requests_of_a_version(
    mock: MockUpstream, world: World, upstreams: Upstreams
) -> None:
    for _ in range(3):
        await upstreams.execute(ref("1.0.0"), asking())
        await world.loaded("node-1", "1.0.0")
    assert mock.accepted == 1
    assert upstreams.statistics[ref("1.0.0")].calls == 3


async def test_a_client_goes_when_no_endpoint_needs_its_version(
    mock: MockUpstream, world: World, upstreams: Upstreams
) -> None:
    await upstreams.execute(ref("1.0.0"), asking())
    for number, version in enumerate(("2.0.0", "0.1.0")):
        await world.move(version, f"swap-{number}")
    await upstreams.execute(ref("2.0.0"), asking())
    assert set(upstreams.statistics) == {ref("2.0.0")}
    async with asyncio.timeout(SOON_SECONDS):
        await mock.until(lambda seen: seen.open == 1)


async def test_a_stream_ends_on_the_version_that_began_it(
    mock: MockUpstream, world: World, upstreams: Upstreams
) -> None:
    """Even if no endpoint needs that version any more."""
    go_on = asyncio.Event()

    async def waits(exchange: Any) -> None:
        await exchange.send(stream_bytes(chunk("He")))
        await go_on.wait()
        await cut(stream_bytes(chunk("llo", finish="stop"), b"[DONE]").split(b"\r\n\r\n", 1)[1])(
            exchange
        )

    mock.behaviours = [waits, answers(HELLO)]
    async with aclosing(upstreams.stream(ref("1.0.0"), asking())) as chunks:
        await anext(chunks)
        for number, version in enumerate(("2.0.0", "0.1.0")):
            await world.move(version, f"swap-{number}")
        await upstreams.execute(ref("2.0.0"), asking())
        assert set(upstreams.statistics) == {ref("2.0.0")}
        go_on.set()
        assert (await anext(chunks)).outputs["choices"][0]["delta"]["content"] == "llo"
        assert [one async for one in chunks] == []
    async with asyncio.timeout(SOON_SECONDS):
        await mock.until(lambda seen: seen.open == 1)


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        (cut(), VersionFailed),
        (answers("<html>"), VersionFailed),
        (answers({}, status=404), VersionFailed),
        (BUSY, VersionOverloaded),
        (REFUSED, RequestRefused),
    ],
)
async def test_a_failure_of_an_upstream_is_a_failure_of_its_version(
    mock: MockUpstream, upstreams: Upstreams, behaviour: Behaviour, kind: type[InferenceFailed]
) -> None:
    mock.behaviours = [behaviour]
    whole = await outcome(upstreams)
    with pytest.raises(InferenceFailed) as streamed:
        await anext(upstreams.stream(ref("1.0.0"), asking()))
    assert type(whole) is type(streamed.value) is kind


async def test_what_the_client_can_act_on_reaches_it(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    mock.behaviours = [BUSY, REFUSED]
    busy = await outcome(upstreams)
    assert isinstance(busy, VersionOverloaded)
    assert busy.retry_after_s == 7.0
    refused = await outcome(upstreams)
    assert isinstance(refused, RequestRefused)
    assert list(refused.fields) == ["max_tokens"]
    assert "too many" in refused.fields["max_tokens"]


async def test_a_request_has_the_time_that_its_client_has(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    mock.behaviours = [stalls()]
    assert isinstance(await outcome(upstreams, asking(timeout_s=0.05)), DeadlineExceeded)


async def test_a_stream_has_that_time_to_begin(mock: MockUpstream, upstreams: Upstreams) -> None:
    mock.behaviours = [stalls()]
    with pytest.raises(DeadlineExceeded):
        await anext(upstreams.stream(ref("1.0.0"), asking(timeout_s=0.05)))


@pytest.mark.slow
async def test_a_stream_has_that_time_again_for_each_chunk(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    mock.behaviours = [stalls(stream_bytes(chunk("He")))]
    async with aclosing(upstreams.stream(ref("1.0.0"), asking(timeout_s=1.5))) as chunks:
        await anext(chunks)
        with pytest.raises(DeadlineExceeded):
            await anext(chunks)


async def test_what_the_request_itself_allows_is_no_failure_of_the_version(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    mock.behaviours = [stalls()]
    whole = Execution(inputs=HI, parameters={"timeout_s": 0.05}, timeout_s=5.0)
    assert isinstance(await outcome(upstreams, whole), RequestTimedOut)
    mock.behaviours = [stalls(stream_bytes(chunk("He")))]
    with pytest.raises(RequestTimedOut):
        _ = [one async for one in upstreams.stream(ref("1.0.0"), whole)]


async def test_who_comes_while_the_upstream_is_left_alone_is_told_when_to_come_back(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    mock.behaviours = [answers({}, status=500)]
    failures = [await outcome(upstreams) for _ in range(6)]
    assert isinstance(failures[-1], VersionUnavailable)
    assert failures[-1].retry_after_s is not None
    assert 0 < failures[-1].retry_after_s <= 1


async def test_a_client_without_patience_is_no_sign_of_a_sick_upstream(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    mock.behaviours = [stalls()] * 6 + [answers(HELLO)]
    for _ in range(6):
        await outcome(upstreams, asking(timeout_s=0.01))
    mock.behaviours = [answers(HELLO)]
    await upstreams.execute(ref("1.0.0"), asking())
    assert upstreams.statistics[ref("1.0.0")].breaker == "closed"


def scraped(upstreams: Upstreams) -> dict[str, float]:
    """Metric -> value, of the one version that was asked."""
    registry = CollectorRegistry()
    registry.register(UpstreamMetrics(upstreams))
    labels = {"tenant": "acme", "model": "fraud", "version": "1.0.0"}
    samples = [sample for family in registry.collect() for sample in family.samples]
    assert all(sample.labels == labels for sample in samples)
    return {sample.name.removeprefix("switchback_upstream_"): sample.value for sample in samples}


async def test_prometheus_is_told_what_its_clients_did(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    assert scraped(upstreams) == {}
    mock.behaviours = [answers(HELLO), answers({}, status=500), stalls()]
    await upstreams.execute(ref("1.0.0"), asking())
    await outcome(upstreams)
    held = asyncio.ensure_future(upstreams.execute(ref("1.0.0"), asking()))
    await mock.until(lambda seen: len(seen.requests) == 3)
    assert scraped(upstreams) == {
        "in_flight": 1,
        "calls_total": 3,
        "attempts_total": 3,
        "failures_total": 1,
        "breaker": 0,
    }
    held.cancel()


async def test_prometheus_is_told_of_an_upstream_that_is_left_alone(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    mock.behaviours = [answers({}, status=500)]
    for _ in range(6):
        await outcome(upstreams)
    told = scraped(upstreams)
    assert told["calls_total"] == told["failures_total"] == 6
    assert told["attempts_total"] == 5
    assert told["breaker"] > 0


async def test_a_client_that_leaves_closes_the_upstreams_connection(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    mock.behaviours = [stalls()]
    asked = asyncio.ensure_future(upstreams.execute(ref("1.0.0"), asking()))
    await mock.until(lambda seen: len(seen.requests) == 1)
    asked.cancel()
    async with asyncio.timeout(SOON_SECONDS):
        await mock.until(lambda seen: seen.open == 0)


async def test_closing_ends_what_is_under_way_and_serves_nothing_more(
    mock: MockUpstream, upstreams: Upstreams
) -> None:
    mock.behaviours = [stalls()]
    asked = asyncio.ensure_future(outcome(upstreams))
    await mock.until(lambda seen: len(seen.requests) == 1)
    await upstreams.close()
    assert isinstance(await asked, VersionUnavailable)
    assert isinstance(await outcome(upstreams), NotServed)

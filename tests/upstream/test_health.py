"""Whether an upstream is there is found out without traffic."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from engine.runtimes.upstream import Health, Upstream, Watch
from engine.runtimes.upstream.health import HEALTHY
from tests.upstream.conftest import SECRET, Open, chat
from tests.upstream.server import Behaviour, MockUpstream, answers, cut, raw, stalls

SICK = Health(is_healthy=False, detail="cut off")


@pytest.mark.parametrize(
    ("behaviour", "detail"),
    [
        (answers({"data": []}), ""),
        (answers({}, status=404), ""),
        (answers({}, status=429), ""),
        (answers({}, status=500), "the upstream answered 500"),
        (answers({}, status=401), "the upstream answered 401"),
        (cut(), "the upstream ended the connection before it answered"),
        (raw(b"garbage\r\n\r\n"), "the upstream's answer is not HTTP"),
    ],
)
async def test_a_probe_tells_life_from_trouble(
    mock: MockUpstream, open_upstream: Open, behaviour: Behaviour, detail: str
) -> None:
    mock.behaviours = [behaviour]
    health = await open_upstream(api_key_env="MOCK_API_KEY").probe()
    assert health == Health(is_healthy=not detail, detail=detail)
    assert mock.requests[0].line == "GET /v1/models HTTP/1.1"
    assert mock.requests[0].headers["authorization"] == f"Bearer {SECRET}"


async def test_a_probe_without_its_key_says_so(open_upstream: Open) -> None:
    health = await open_upstream(api_key_env="OTHER_API_KEY").probe()
    assert not health.is_healthy
    assert "OTHER_API_KEY is not set" in health.detail


async def test_a_probe_passes_a_full_house(mock: MockUpstream, open_upstream: Open) -> None:
    mock.behaviours = [stalls(), answers({})]
    upstream = open_upstream(in_flight_max=1)
    call = asyncio.ensure_future(upstream.answer(chat()))
    await mock.until(lambda seen: len(seen.requests) == 1)
    assert (await upstream.probe()).is_healthy
    call.cancel()
    await asyncio.wait([call])


async def nothing(seconds: float) -> None:
    """No pause."""


@pytest.fixture
def watch() -> Watch:
    async def never() -> Health:
        raise AssertionError("not probed here")

    return Watch(never, random=Random(1), sleep=nothing)


@pytest.mark.parametrize(
    ("found", "known"),
    [
        ([], False),
        ([HEALTHY], True),
        ([SICK], False),
        ([HEALTHY, SICK], True),
        ([HEALTHY, SICK, SICK], False),
        ([HEALTHY, SICK, HEALTHY, SICK], True),
        ([SICK, SICK, HEALTHY], True),
    ],
)
def test_one_lost_probe_is_not_an_upstream_lost(
    watch: Watch, found: list[Health], known: bool
) -> None:
    for health in found:
        watch.take(health)
    assert watch.health.is_healthy == known


async def test_a_watch_probes_again_and_again(mock: MockUpstream, open_upstream: Open) -> None:
    mock.behaviours = [answers({}), answers({}, status=500)]
    pauses: list[float] = []
    changed = asyncio.Event()
    upstream: Upstream = open_upstream()

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            changed.set()
            await asyncio.Event().wait()

    watch = Watch(upstream.probe, random=Random(1), sleep=sleep)
    watching = asyncio.ensure_future(watch.run())
    await changed.wait()
    watching.cancel()
    await asyncio.wait([watching])
    assert watch.health == Health(is_healthy=False, detail="the upstream answered 500")
    assert all(9 <= pause <= 11 for pause in pauses)
    assert len(set(pauses)) == 3

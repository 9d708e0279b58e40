"""What is counted of answers: on answers that a test writes down, and on the built-in model."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import httpx
import openai
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from handlers import batching
from tests.openai.conftest import Door
from tests.openai.voices import USAGE, Voices, delta
from tests.scenarios.language import facts
from tests.system import System

SAY: Any = [{"role": "user", "content": "hello"}]
VERSION = {"tenant": "acme", "endpoint": "chat", "version": "1.0.0"}


async def samples(client: httpx.AsyncClient, **labels: str) -> Counter[str]:
    """Sample -> value, or the sum of those with these labels."""
    told: Counter[str] = Counter()
    for family in text_string_to_metric_families((await client.get("/metrics")).text):
        for sample in family.samples:
            if labels.items() <= sample.labels.items():
                told[sample.name] += sample.value
    return told


async def counted(door: Door) -> Counter[str]:
    return await samples(door.client, **VERSION)


async def test_a_stream_is_counted_when_it_has_ended(
    door: Door, voices: Voices, client: openai.AsyncOpenAI
) -> None:
    before = await counted(door)
    goes_on = asyncio.Event()
    voices.says["chat"] = [delta("a"), goes_on, delta("b"), {"choices": [], "usage": USAGE}]
    stream = await client.chat.completions.create(model="chat", messages=SAY, stream=True)
    await anext(stream)
    assert await counted(door) == before
    goes_on.set()
    assert [chunk async for chunk in stream]
    new = await counted(door) - before
    assert new["switchback_inference_requests_total"] == 1
    assert new["switchback_time_to_first_token_seconds_count"] == 1
    assert new["switchback_time_per_output_token_seconds_count"] == 1
    assert new["switchback_tokens_total"] == USAGE["total_tokens"]


@pytest.mark.parametrize("stream", [True, False])
async def test_tokens_are_counted_whether_or_not_the_client_asks_for_them(
    door: Door, voices: Voices, client: openai.AsyncOpenAI, stream: bool
) -> None:
    before = await counted(door)
    choice = {"index": 0, "text": "a", "finish_reason": "stop"}
    whole = {"choices": [choice], "usage": USAGE}
    voices.says["chat"] = [whole] if stream else whole
    answer: Any = await client.completions.create(model="chat", prompt="p", stream=stream)
    if stream:
        assert [chunk async for chunk in answer]
    new = await counted(door) - before
    assert new["switchback_tokens_total"] == USAGE["total_tokens"]
    assert new["switchback_time_to_first_token_seconds_count"] == int(stream)


async def test_a_stream_that_breaks_is_counted_by_its_code_and_once(
    door: Door, voices: Voices, client: openai.AsyncOpenAI
) -> None:
    before = await counted(door)
    failed, answered = await door.counted("runtime_failed"), await door.counted("ok")
    voices.says["chat"] = [delta("a"), Broken()]
    stream = await client.chat.completions.create(model="chat", messages=SAY, stream=True)
    with pytest.raises(openai.APIError):
        assert [chunk async for chunk in stream]
    new = await counted(door) - before
    assert await door.counted("runtime_failed") == failed + 1
    assert await door.counted("ok") == answered
    assert new["switchback_inference_requests_total"] == 1
    assert new["switchback_time_to_first_token_seconds_count"] == 1
    assert new["switchback_time_per_output_token_seconds_count"] == 0


async def test_a_stream_whose_client_leaves_is_counted_as_left(
    door: Door, voices: Voices, client: openai.AsyncOpenAI
) -> None:
    before, answered = await door.counted("left"), await door.counted("ok")
    voices.says["chat"] = [delta("a"), asyncio.Event()]
    stream = await client.chat.completions.create(model="chat", messages=SAY, stream=True)
    await anext(stream)
    await stream.close()
    async with asyncio.timeout(30):
        while await door.counted("left") == before:
            await voices.cancelled.wait()
    assert await door.counted("left") == before + 1
    assert await door.counted("ok") == answered


class Broken(Exception):
    code = "runtime_failed"


STREAMS, WHOLE, TOKENS = 6, 5, 12


@pytest.mark.slow
async def test_what_was_asked_is_what_is_told_by_node_and_by_gateway(system: System) -> None:
    async with facts(system, batch_max=4) as asked, httpx.AsyncClient() as http:
        http.base_url = httpx.URL(system.url)
        before_s = time.monotonic()
        streams = await asyncio.gather(
            *(asked.stream(max_tokens=TOKENS, ignore_eos=True) for _ in range(STREAMS))
        )
        begun_s = time.monotonic()
        answers = await asyncio.gather(
            *(asked.ask(max_tokens=TOKENS, ignore_eos=True) for _ in range(WHOLE))
        )
        for stream in streams:
            assert [chunk async for chunk in stream]
        ended_s = time.monotonic()
        told = await asked.statistics()
        after_s = time.monotonic()

        count = STREAMS + WHOLE
        assert told["requests_ended"] == {"length": count}
        assert told["generation_tokens"] == count * TOKENS
        prompt_tokens = answers[0].usage.prompt_tokens
        assert told["prompt_tokens"] == count * prompt_tokens
        assert told["batch_size_max"] <= told["batch_max"] == 4
        for name in ("time_to_first_token", "time_per_output_token", "e2e_request_latency"):
            latency = told[name]
            assert latency["count"] == count
            assert 0 < latency["p50_s"] <= latency["p95_s"] <= latency["p99_s"]
        # One clock: the first request came between `before_s` and `begun_s`, and the question,
        # which is what it is divided by, between `ended_s` and `after_s`.
        least, most = 1 / (after_s - before_s), 1 / (ended_s - begun_s)
        assert count * least <= told["requests_per_s"] <= count * most
        assert count * TOKENS * least <= told["tokens_per_s"] <= count * TOKENS * most

        node = await samples(http, tenant="default", model="facts", version="2.0.0")
        assert node["switchback_requests_ended_total"] == count
        assert node["switchback_generation_tokens_total"] == count * TOKENS
        assert node["switchback_batching_request_seconds_count"] == count
        gateway = await samples(http, tenant="default", endpoint="facts", version="2.0.0")
        assert gateway["switchback_inference_requests_total"] == count
        assert gateway["switchback_tokens_total"] == count * (prompt_tokens + TOKENS)
        assert gateway["switchback_time_to_first_token_seconds_count"] == STREAMS
        assert gateway["switchback_time_per_output_token_seconds_count"] == STREAMS
        async with asyncio.timeout(30):
            while gateway["switchback_inference_seconds_count"] < count:
                gateway = await samples(http, tenant="default", endpoint="facts")


@pytest.mark.slow
async def test_a_model_whose_process_hangs_is_left_out_until_it_goes_on(
    system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with facts(system) as asked, httpx.AsyncClient(base_url=system.url) as http:
        assert (await samples(http, model="facts"))["switchback_batch_max"]
        (model,) = (
            child
            for child in psutil.Process().children()
            if "engine.runtimes.language.host" in child.cmdline()
        )
        monkeypatch.setattr(batching, "STATISTICS_SECONDS", 0.05)
        model.suspend()
        try:
            told = await samples(http)
            node = await system.client.batching(system.settings.node_id)
        finally:
            model.resume()
        assert told["switchback_batching_unanswered_total"] >= 1
        assert not told["switchback_batch_max"]
        silent = {"tenant": "default", "model": "facts", "version": "2.0.0"}
        assert (node["items"], node["unanswered"]) == ([], [silent])
        monkeypatch.undo()
        assert "Paris" in await asked.text()
        assert (await asked.statistics())["requests_ended"] == {"stop": 1}

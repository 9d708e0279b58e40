"""The batching engine, as users of a language model's endpoint see it: through OpenAI's client."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from typing import Any

import httpx
import openai
import psutil
import pytest

from switchback.client import Client
from tests.scenarios.language import ENDPOINT, FRANCE, Facts, facts, read
from tests.system import System

CAPITALS = {
    "France": "Paris",
    "Germany": "Berlin",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Norway": "Oslo",
    "Portugal": "Lisbon",
    "Austria": "Vienna",
    "Greece": "Athens",
}
ENDLESS: dict[str, Any] = {"max_tokens": 4_000, "ignore_eos": True}
"""A request that goes on for as long as a test wants it to."""
SLOWLY = {"rehearsal": {"step_ms": 2.0}}


async def capital(asked: Facts, country: str) -> tuple[str, str]:
    return country, await asked.text(f"The capital of {country} is")


async def test_b01_one_request_completes_and_knows_the_capital_of_france(system: System):
    async with facts(system) as asked:
        answer = await asked.ask()
        assert "Paris" in answer.choices[0].text
        assert answer.model == ENDPOINT
        used = answer.usage
        assert used is not None
        assert used.total_tokens == used.prompt_tokens + used.completion_tokens > 0


async def test_b02_requests_one_after_another_are_each_answered_rightly(system: System):
    async with facts(system) as asked:
        for country, city in CAPITALS.items():
            assert city in (await capital(asked, country))[1]
        assert (await asked.until_idle())["requests_ended"] == {"stop": len(CAPITALS)}


async def test_b03_twenty_at_once_say_what_each_says_alone(system: System):
    async with facts(system) as asked:
        alone = dict([await capital(asked, country) for country in CAPITALS])
        together = await asyncio.gather(*(capital(asked, each) for each in [*CAPITALS] * 2))
        assert together == list(alone.items()) * 2


async def test_b04_a_short_request_leaves_the_batch_and_its_place_is_taken_at_once(system: System):
    async with facts(system, batch_max=2, **SLOWLY) as asked:
        long = await asked.stream(**ENDLESS)
        await anext(long)
        short, waiting = asyncio.create_task(asked.text()), asyncio.create_task(asked.text())
        assert await short == await waiting
        told = await asked.statistics()
        assert told["num_requests_running"] == 1, "the long one has not ended"
        assert told["batch_size_max"] == 2
        await long.close()


async def test_b05_a_batch_is_never_larger_than_its_limit(system: System):
    async with facts(system, batch_max=4) as asked:
        await asyncio.gather(*(asked.ask(max_tokens=20, ignore_eos=True) for _ in range(20)))
        told = await asked.statistics()
        assert told["batch_size_max"] == told["batch_max"] == 4
        assert told["batch_size_sum"] <= 4 * told["steps"]


async def test_b06_an_answer_ends_with_its_text_before_its_limit(system: System):
    async with facts(system) as asked:
        answer = await asked.ask(max_tokens=100)
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.completion_tokens < 100


async def test_b07_an_answer_ends_at_exactly_its_limit(system: System):
    async with facts(system) as asked:
        answer = await asked.ask(max_tokens=3, ignore_eos=True)
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 3


@pytest.mark.parametrize("how", ["stream", "whole"])
async def test_b08_a_cancelled_request_has_no_result_and_frees_its_capacity(
    system: System, how: str
):
    async with facts(system, **SLOWLY) as asked:
        if how == "stream":
            stream = await asked.stream(**ENDLESS)
            await anext(stream)
            assert (await asked.statistics())["kv_blocks_used"] > 0
            await stream.close()
        else:
            request = asyncio.create_task(asked.ask(**ENDLESS))
            await asked.when(lambda told: told["num_requests_running"] == 1)
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
        told = await asked.until_idle()
        assert told["kv_blocks_used"] == 0
        assert told["requests_ended"] == {"cancelled": 1}
        assert "Paris" in await asked.text()


@pytest.mark.parametrize("kv_bytes", [100_000_000, 2**17], ids=["100 MB", "less than is wanted"])
async def test_b09_twenty_requests_never_take_more_memory_than_there_is(
    system: System, kv_bytes: int
):
    async with facts(system, kv_bytes=kv_bytes, rehearsal={"step_ms": 1.0}) as asked:
        requests = [
            asyncio.create_task(asked.ask(max_tokens=60, ignore_eos=True)) for _ in range(20)
        ]
        seen = []
        while not all(request.done() for request in requests):
            seen.append(await asked.statistics())
        assert {(await each).usage.completion_tokens for each in requests} == {60}
        assert all(told["kv_bytes_used"] <= told["kv_bytes_total"] <= kv_bytes for told in seen)
        assert (await asked.until_idle())["kv_bytes_used"] == 0


async def test_b10_capacity_in_use_falls_when_a_request_ends(system: System):
    async with facts(system, **SLOWLY) as asked:
        one, other = await asked.stream(**ENDLESS), await asked.stream(**ENDLESS)
        for stream in (one, other):
            await anext(stream)
        both = (await asked.statistics())["kv_blocks_used"]
        await one.close()
        left = await asked.when(lambda told: told["num_requests_running"] == 1)
        assert left["kv_blocks_used"] > 0
        await other.close()
        assert (await asked.until_idle())["kv_blocks_used"] == 0 < both


@pytest.mark.slow
async def test_b11_throughput_as_measured_is_count_over_time(system: System):
    async with facts(system, rehearsal={"step_ms": 1.0}) as asked:
        before = time.perf_counter()
        first = await asked.stream(max_tokens=400, ignore_eos=True)
        await anext(first)
        begun = time.perf_counter()
        await asyncio.gather(
            read(first), *(asked.ask(max_tokens=40, ignore_eos=True) for _ in range(99))
        )
        ended = time.perf_counter()
        told = await asked.statistics()
        after = time.perf_counter()
        # The first request came between `before` and `begun`, the question when all had ended.
        assert 100 / (after - before) * 0.95 <= told["requests_per_s"]
        assert told["requests_per_s"] <= 100 / (ended - begun) * 1.05
        assert told["generation_tokens"] == 400 + 99 * 40


@pytest.mark.slow
async def test_b12_half_are_faster_than_most_and_most_faster_than_nearly_all(system: System):
    async with facts(system, batch_max=8) as asked:
        lengths = [1 + number * 7 % 90 for number in range(200)]
        await asyncio.gather(*(asked.ask(max_tokens=n, ignore_eos=True) for n in lengths))
        latency = (await asked.statistics())["e2e_request_latency"]
        assert latency["count"] == 200
        assert 0 < latency["p50_s"] < latency["p95_s"] < latency["p99_s"]


async def test_b13_a_busy_engine_uses_its_batch(system: System):
    async with facts(system, batch_max=8, **SLOWLY) as asked:
        lengths = [10 + number * 7 % 20 for number in range(100)]
        await asyncio.gather(*(asked.ask(max_tokens=n, ignore_eos=True) for n in lengths))
        assert (await asked.statistics())["batch_utilisation"] > 0.7


async def test_b14_an_executor_that_fails_twice_is_tried_again_and_counted(system: System):
    async with facts(system, rehearsal={"failing_steps": 2}) as asked:
        assert "Paris" in await asked.text()
        told = await asked.statistics()
        assert told["executor_failures"] == 2
        assert told["requests_ended"] == {"stop": 1}


async def test_b15_a_prompt_that_cannot_be_computed_fails_alone(system: System):
    async with facts(system, rehearsal={"failing_text": "Atlantis"}) as asked:
        cursed, *others = await asyncio.gather(
            asked.ask("The capital of Atlantis is"),
            *(capital(asked, country) for country in CAPITALS),
            return_exceptions=True,
        )
        assert isinstance(cursed, openai.InternalServerError)
        assert cursed.status_code == 502
        assert all(city in dict(others)[country] for country, city in CAPITALS.items())


@pytest.mark.slow
async def test_b16_a_thousand_requests_all_complete(system: System):
    async with facts(system) as asked:
        left = iter(range(1_000))

        async def some() -> Counter[str]:
            return Counter([(await asked.text(max_tokens=4)) for _ in left])

        told = sum(await asyncio.gather(*(some() for _ in range(50))), Counter())
        assert told.total() == 1_000
        assert len(told) == 1
        assert sum((await asked.until_idle())["requests_ended"].values()) == 1_000


@pytest.mark.slow
async def test_b17_ten_prompts_of_ten_thousand_characters_leave_no_memory_behind(system: System):
    async with facts(system) as asked:
        long = "The capital of Norway is Oslo. " * 400
        await asked.ask(long[:10_000], max_tokens=1)
        settled = memory_of_children()
        for number in range(10):
            answer = await asked.ask(f"{number} {long}"[:10_000], max_tokens=1)
            assert answer.usage is not None
            assert answer.usage.prompt_tokens > 1_000
        assert (await asked.until_idle())["kv_blocks_used"] == 0
        assert memory_of_children() < settled + 32 * 2**20


def memory_of_children() -> int:
    children = psutil.Process().children()
    return sum(child.memory_full_info().uss for child in children if "python" in child.name())


async def test_b18_high_goes_before_low(system: System):
    async with facts(system, batch_max=1, **SLOWLY) as asked:
        long = await asked.stream(**ENDLESS)
        await anext(long)
        ended: list[str] = []

        async def ask(priority: str) -> None:
            await asked.ask(max_tokens=2, priority=priority)
            ended.append(priority)

        requests = [asyncio.create_task(ask("low")) for _ in range(3)]
        await waiting(asked, 3)
        requests += [asyncio.create_task(ask("high")) for _ in range(3)]
        await waiting(asked, 6)
        await long.close()
        await asyncio.gather(*requests)
        assert ended == ["high"] * 3 + ["low"] * 3


async def test_b18_low_is_not_starved_by_high(system: System):
    async with facts(system, batch_max=1, ageing_seconds=0.2) as asked:

        async def high_for_ever() -> None:
            while True:
                await asked.ask(max_tokens=10, ignore_eos=True, priority="high")

        pressing = [asyncio.create_task(high_for_ever()) for _ in range(4)]
        await asked.when(lambda told: told["num_requests_waiting"] >= 2)
        await asked.ask(max_tokens=2, priority="low")
        assert not any(task.done() for task in pressing)
        for task in pressing:
            task.cancel()
        await asyncio.gather(*pressing, return_exceptions=True)


async def waiting(asked: Facts, requests: int) -> None:
    """Returns once so many wait."""
    await asked.when(lambda told: told["num_requests_waiting"] == requests)


async def test_b19_a_shared_prefix_is_computed_once(system: System):
    async with facts(system) as asked:
        shared = "The capital of Norway is Oslo. " * 50

        async def computed(question: str) -> tuple[int, int]:
            """Prompt tokens that were found, and rows that were computed."""
            before = (await asked.until_idle())["step_tokens"]
            answer = await asked.ask(shared + question, max_tokens=1)
            rows = (await asked.until_idle())["step_tokens"] - before
            return answer.usage.prompt_tokens_details.cached_tokens, rows

        assert (await computed(FRANCE))[0] == 0
        found, rows = await computed("The capital of Italy is")
        assert found >= 400
        assert rows < 32
        assert (await asked.statistics())["prefix_cache_hit_rate"] > 0.4


async def test_b20_a_version_is_started_stopped_and_started_again(system: System):
    client = system.client
    await client.register_model("spare")
    await client.register_version(
        "spare", "1.0.0", runtime="language-model", artifact={"uri": "builtin://facts-1"}
    )
    here = {("spare", "1.0.0")}
    for verb, resident in [("load", here), ("load", here), ("unload", set()), ("unload", set())]:
        await repository(system, "spare", verb)
        while await versions_on(client) != resident:
            pass
    await repository(system, "spare", "load")
    await client.create_endpoint("spare", model="spare", version="1.0.0")
    async with facts(system) as asked:
        answer = await asked.openai.completions.create(model="spare", prompt=FRANCE)
        assert answer.choices[0].text


async def test_b20_a_version_that_is_stopped_finishes_what_it_has(system: System):
    async with facts(system, **SLOWLY) as asked:
        whole = await asked.text(max_tokens=200, ignore_eos=True)
        await asked.register("3.0.0", builtin="facts-1")
        await asked.register("4.0.0", builtin="facts-1")
        stream = await asked.stream(max_tokens=200, ignore_eos=True)
        for version in ("3.0.0", "4.0.0"):
            await system.client.swap(ENDPOINT, to=version)
        await system.client.retire_version(ENDPOINT, "2.0.0")
        assert await read(stream) == whole
        while ("facts", "2.0.0") in await versions_on(system.client):
            pass


async def test_b20_a_version_that_is_killed_aborts_its_work_and_comes_back(system: System):
    async with facts(system, **SLOWLY) as asked:
        stream = await asked.stream(**ENDLESS)
        await anext(stream)
        for child in psutil.Process().children():
            if "python" in child.name() and "language" in " ".join(child.cmdline()):
                child.kill()
        with pytest.raises(openai.APIError):
            await read(stream)
        assert "Paris" in await answered(asked)


async def answered(asked: Facts) -> str:
    """The answer of the first request that gets one."""
    while True:
        try:
            return await asked.text()
        except openai.InternalServerError as error:
            assert error.status_code in (502, 503), error


async def repository(system: System, model: str, verb: str) -> None:
    async with httpx.AsyncClient(timeout=60) as http:
        answer = await http.post(
            f"{system.url}/v2/repository/models/{model}/{verb}",
            headers={"Authorization": f"Bearer {system.key}"},
        )
    assert answer.status_code == 200, answer.text


async def versions_on(client: Client) -> set[tuple[str, str]]:
    [node] = [node async for node in client.nodes()]
    return {(resident["model"], resident["version"]) for resident in node["resident"]}


async def test_b21_a_stop_string_ends_the_text_wherever_tokens_end(system: System):
    async with facts(system) as asked:
        whole = await asked.text("What is the capital of France?")
        for begin, end in itertools.combinations(range(len(whole)), 2):
            if (begin + end) % 7 == 0:
                stop = whole[begin:end]
                stopped = await asked.ask("What is the capital of France?", stop=stop)
                assert stopped.choices[0].text == whole[: whole.index(stop)]
                assert stopped.choices[0].finish_reason == "stop"


async def test_b21_a_stream_tells_in_order_what_the_whole_answer_says(system: System):
    async with facts(system, rehearsal={"step_ms": 20.0}) as asked:
        whole = await asked.ask("Tell me about France.", max_tokens=50)
        stream = await asked.stream(
            "Tell me about France.", max_tokens=50, stream_options={"include_usage": True}
        )
        pieces = [piece async for piece in stream]
        assert "".join(p.choices[0].text for p in pieces if p.choices) == whole.choices[0].text
        assert len(pieces) > 2, "what is written is told before the rest is"
        assert pieces[-1].usage == whole.usage.model_copy(
            update={"prompt_tokens_details": pieces[-1].usage.prompt_tokens_details}
        )


async def test_b21_a_request_ends_at_its_deadline_with_what_it_has(system: System):
    async with facts(system, rehearsal={"step_ms": 20.0}) as asked:
        answer = await asked.ask(timeout_s=0.3, **ENDLESS)
        [choice] = answer.choices
        assert choice.finish_reason == "length"
        assert choice.model_extra == {"stop_reason": "deadline"}
        assert 0 < answer.usage.completion_tokens < 20

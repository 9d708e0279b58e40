"""Language models move like any other version: swaps, canaries, shadows, fallbacks; mid-stream."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncStream
from openai.types import Completion

from events.catalogue.traffic import WindowObserved
from tests.scenarios.language import ENDPOINT, FRANCE, MODEL, Facts, facts, read
from tests.scenarios.test_b_batching import CAPITALS
from tests.scenarios.traffic import counted
from tests.system import System
from tests.upstream.server import (
    HELLO,
    Behaviour,
    MockUpstream,
    answers,
    chunk,
    cut,
    document,
    mock_upstream,
    raw,
    stalls,
    stream_bytes,
)

STREAMS = 50
LONG: dict[str, Any] = {"max_tokens": 200, "ignore_eos": True}


@pytest.mark.slow
async def test_fifty_streams_end_as_they_began_through_a_swap_and_a_rollback(system: System):
    slowly = {"rehearsal": {"step_ms": 10.0}}
    async with facts(system, **slowly) as asked:
        await asked.register("3.0.0", builtin="facts-1", **slowly)
        await system.client.swap(ENDPOINT, to="3.0.0")
        expected = {"3.0.0": await asked.text(**LONG)}
        await system.client.rollback(ENDPOINT)
        expected["2.0.0"] = await asked.text(**LONG)
        assert expected["2.0.0"] != expected["3.0.0"]

        async def fifty() -> list[tuple[str, AsyncStream[Completion]]]:
            return await asyncio.gather(*(asked.told(**LONG) for _ in range(STREAMS)))

        streamed = await fifty()
        await system.client.swap(ENDPOINT, to="3.0.0")
        assert (await asked.statistics("2.0.0"))["num_requests_running"] == STREAMS
        streamed += await fifty()
        await system.client.rollback(ENDPOINT)
        assert (await asked.statistics("3.0.0"))["num_requests_running"] == STREAMS
        streamed += await fifty()
        began = [headers["switchback-version"] for headers, _ in streamed]
        assert began == ["2.0.0"] * STREAMS + ["3.0.0"] * STREAMS + ["2.0.0"] * STREAMS
        texts = await asyncio.gather(*(read(stream) for _, stream in streamed))
        assert texts == [expected[version] for version in began]


@pytest.mark.slow
async def test_no_first_token_waits_for_a_load_and_no_request_fails_through_a_swap(system: System):
    async with facts(system) as asked:
        await asked.register("3.0.0", builtin="facts-1")
        seen: list[tuple[str, str]] = []

        async def ask_for_ever() -> None:
            while True:
                headers, stream = await asked.told()
                seen.append((headers["switchback-version"], headers["switchback-attempts"]))
                assert await read(stream)

        asking = [asyncio.create_task(ask_for_ever()) for _ in range(4)]
        for to in ("3.0.0", "2.0.0", "3.0.0"):
            await system.client.swap(ENDPOINT, to=to)
            assert await asked.text()
        await system.client.rollback(ENDPOINT)
        for task in asking:
            assert not task.done(), task
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        # Each was answered by the first it was sent to, whatever was being loaded meanwhile.
        assert {attempts for _, attempts in seen} == {"1"}
        assert {version for version, _ in seen} == {"2.0.0", "3.0.0"}


async def ask_capitals(asked: Facts, keys: itertools.count[int]) -> None:
    countries = itertools.cycle(CAPITALS)
    while True:
        await asked.ask(f"The capital of {next(countries)} is", key=f"user-{next(keys)}")


@pytest.mark.slow
@pytest.mark.settings(check_functions={"facts": "engine.runtimes.language.facts:answers_right"})
async def test_a_canary_that_tells_untruths_is_rolled_back_by_its_quality(system: System):
    async with facts(system) as asked:
        await asked.register("3.0.0", builtin="facts-3", parent=f"{MODEL}@2.0.0")
        keys = itertools.count()
        asking = [asyncio.create_task(ask_capitals(asked, keys)) for _ in range(4)]
        started = await system.client.start_rollout(
            ENDPOINT,
            to="3.0.0",
            steps=[{"weight": 50, "hold_s": 3600}],
            analysis={"metric": "quality", "check": "facts"},
        )
        ended = await system.client.wait_for_rollout(ENDPOINT, started["id"])
        for task in asking:
            assert not task.done(), task
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert (ended["state"], ended["reason"], ended["weight"]) == ("aborted", "failed", 0)
        failed = {each["metric"] for each in ended["verdicts"] if each["outcome"] == "fail"}
        assert failed == {"quality"}
        assert "Paris" in await asked.text()


async def test_a_shadow_is_compared_with_what_was_streamed(system: System):
    async with facts(system) as asked:
        await asked.register("3.0.0", builtin="facts-2")
        await system.client.set_policy(
            ENDPOINT, {"split": {"2.0.0": 100}, "shadow": [{"version": "3.0.0"}]}
        )
        for country in CAPITALS:
            assert CAPITALS[country] in await read(
                await asked.stream(f"The capital of {country} is")
            )
        await counted(system, ENDPOINT, compared=len(CAPITALS))
        [shadow] = (await system.client.shadow(ENDPOINT))["versions"].values()
        assert (shadow["compared"], shadow["agreed"]) == (len(CAPITALS),) * 2


async def test_windows_count_the_tokens_of_whole_answers_and_of_streams(system: System):
    async with facts(system) as asked:
        answer = await asked.ask()
        assert answer.usage is not None
        await read(await asked.stream())
        tokens = 0
        subject = f"obs.*.traffic.{ENDPOINT}"
        async for recorded in system.process.jetstream.traffic.subscribe(subject):
            assert isinstance(recorded.event, WindowObserved)
            tokens += sum(seen.tokens for seen in recorded.event.versions.values())
            if tokens >= 2 * answer.usage.total_tokens:
                break
        assert tokens == 2 * answer.usage.total_tokens


async def register_upstream(system: System, mock: MockUpstream, version: str = "9.0.0") -> None:
    await system.client.register_version(
        MODEL,
        version,
        runtime="upstream",
        config={"url": mock.url, "model": "theirs", "attempts_max": 1, "timeout_s": 5.0},
    )


async def chat(asked: Facts) -> tuple[httpx.Headers, str]:
    raw = await asked.openai.chat.completions.with_raw_response.create(
        model=ENDPOINT, messages=[{"role": "user", "content": "What is the capital of France?"}]
    )
    return raw.headers, raw.parse().choices[0].message.content or ""


async def test_an_upstream_answers_like_any_version_until_it_fails_and_another_stands_in(
    system: System,
):
    async with facts(system) as asked, mock_upstream() as mock:
        await register_upstream(system, mock)
        await system.client.set_policy(ENDPOINT, {"split": {"9.0.0": 100}, "fallback": ["2.0.0"]})
        mock.behaviours = [answers(HELLO)]
        headers, text = await chat(asked)
        assert (headers["switchback-version"], headers["switchback-attempts"]) == ("9.0.0", "1")
        assert text == "Hello"
        mock.behaviours = [cut(b"")]
        headers, text = await chat(asked)
        assert (headers["switchback-version"], headers["switchback-attempts"]) == ("2.0.0", "2")
        assert "Paris" in text
        explained = await system.client.explain_receipt(headers["switchback-receipt"])
        assert explained["valid"]
        assert (explained["version"], explained["instead_of"]) == ("2.0.0", "9.0.0")


BAD_ANSWERS: dict[str, tuple[Behaviour, int]] = {
    "garbage": (raw(document(b"\x00\xff garbage")), 502),
    "a page of HTML": (raw(document(b"<html>no</html>", type_="text/html")), 502),
    "a document of another kind": (answers({"answer": 42}), 502),
    "nothing": (cut(), 502),
    "half an answer": (cut(document(b'{"choices": [' + b" " * 100)[:-50]), 502),
    "an error of its own": (raw(document(b"down", status=500)), 502),
    "too busy": (raw(document(b"{}", status=429, headers={"retry-after": "7"})), 503),
}


@pytest.mark.parametrize("bad", BAD_ANSWERS)
async def test_an_upstream_that_answers_badly_is_told_in_the_right_shape(system: System, bad: str):
    behaviour, status = BAD_ANSWERS[bad]
    async with facts(system) as asked, mock_upstream() as mock:
        await register_upstream(system, mock)
        await system.client.swap(ENDPOINT, to="9.0.0")
        mock.behaviours = [behaviour]
        with pytest.raises(openai.InternalServerError) as failed:
            await chat(asked)
        assert failed.value.status_code == status
        assert isinstance(failed.value.body, dict)
        assert failed.value.body["message"]
        await system.client.rollback(ENDPOINT)
        assert "Paris" in (await chat(asked))[1]


HALVES: dict[str, Behaviour] = {
    "cut off": cut(stream_bytes(chunk("Hel"))),
    "ended too early": raw(stream_bytes(chunk("Hel")) + b"0\r\n\r\n"),
    "garbage in the middle": cut(stream_bytes(chunk("Hel"), b"\xff{")),
    "an error in the middle": cut(stream_bytes(chunk("Hel"), {"error": {"message": "gone"}})),
}


@pytest.mark.parametrize("half", HALVES)
async def test_half_a_stream_ends_with_an_error_and_what_came_was_passed_on(
    system: System, half: str
):
    async with facts(system) as asked, mock_upstream() as mock:
        await register_upstream(system, mock)
        await system.client.swap(ENDPOINT, to="9.0.0")
        mock.behaviours = [HALVES[half]]
        stream = await asked.openai.chat.completions.create(
            model=ENDPOINT, messages=[{"role": "user", "content": "Hello?"}], stream=True
        )
        text = (await anext(stream)).choices[0].delta.content
        assert text == "Hel"
        with pytest.raises(openai.APIError):
            async for _ in stream:
                pass


async def test_a_client_that_leaves_ends_the_upstreams_work(system: System):
    async with facts(system) as asked, mock_upstream() as mock:
        await register_upstream(system, mock)
        await system.client.swap(ENDPOINT, to="9.0.0")
        mock.behaviours = [stalls(stream_bytes(chunk("Hel")))]
        stream = await asked.openai.chat.completions.create(
            model=ENDPOINT, messages=[{"role": "user", "content": "Hello?"}], stream=True
        )
        await anext(stream)
        asked_so_far = mock.open
        await stream.close()
        await mock.until(lambda seen: seen.open < asked_so_far)


BAD_REQUESTS: dict[str, tuple[dict[str, Any], str]] = {
    "an empty prompt": ({"prompt": ""}, "prompt"),
    "no prompt": ({}, "prompt"),
    "a prompt longer than the context": ({"prompt": "Paris " * 20_000}, "prompt"),
    "max_tokens 0": ({"prompt": FRANCE, "max_tokens": 0}, "max_tokens"),
    "max_tokens over the limit": ({"prompt": FRANCE, "max_tokens": 10**6}, "max_tokens"),
    "a negative temperature": ({"prompt": FRANCE, "temperature": -1}, "temperature"),
    "a stop list of 1 MB": ({"prompt": FRANCE, "stop": ["x" * 250] * 4_000}, "stop"),
    "a stop string of 1 MB": ({"prompt": FRANCE, "stop": "x" * 1_000_000}, "stop"),
    "too many choices": ({"prompt": FRANCE, "n": 10_000}, "n"),
    "an unknown member": ({"prompt": FRANCE, "tempreature": 1}, "tempreature"),
    "an unknown model": ({"prompt": FRANCE, "model": "none"}, "model"),
    "no model": ({"prompt": FRANCE, "model": None}, "model"),
}


async def test_bad_requests_are_told_what_is_wrong_and_the_rest_goes_on(system: System):
    async with facts(system, rehearsal={"step_ms": 1.0}) as asked, httpx.AsyncClient() as http:
        stream = await asked.stream(**LONG)
        statuses: Counter[int] = Counter()
        for name, (members, param) in BAD_REQUESTS.items():
            body = {"model": ENDPOINT, **members}
            answer = await http.post(
                f"{system.url}/v1/completions",
                json=body,
                headers={"Authorization": f"Bearer {system.key}"},
            )
            error = answer.json()["error"]
            assert answer.status_code in (400, 404), (name, answer.text)
            assert error["param"] is not None, (name, error)
            assert error["param"].startswith(param), (name, error)
            assert error["message"], name
            assert len(answer.content) < 4_000, name
            statuses[answer.status_code] += 1
        assert statuses[404] == 1
        lone = b'{"model": "facts", "prompt": "\\ud800"}'
        for garbage in (
            lone,
            b"\xff\xfe",
            b'{"model": "facts", "prompt": "\xff"}',
            b"[]",
            b"{",
            b"",
        ):
            answer = await http.post(
                f"{system.url}/v1/completions",
                content=garbage,
                headers={"Authorization": f"Bearer {system.key}"},
            )
            assert (answer.status_code, answer.json()["error"]["type"]) == (
                400,
                "invalid_request_error",
            )
        assert (await read(stream)).strip()

"""Language versions on real processes: answers, streams, neighbours, ends of every kind."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio

from engine.batching import Statistics
from engine.runtimes import (
    LoadFailed,
    RequestRefused,
    RuntimeFailed,
    RuntimeSettings,
    VersionOverloaded,
    create_runtime,
    describe_artifact,
)
from engine.runtimes.language.builtin import builtin_artifact, builtin_directory
from engine.runtimes.language_model import LanguageRuntime
from events.catalogue.models import Artifact, VersionRegistered

CAPITAL = {"prompt": "The capital of France is"}
QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}
ENDLESS = {"ignore_eos": True, "max_tokens": 4_000}
SLOW = {"rehearsal": {"step_ms": 5}}

Ready = Callable[..., Awaitable[LanguageRuntime]]


def version(artifact: Artifact, **config: Any) -> VersionRegistered:
    return VersionRegistered(
        version="1.0.0", runtime="language-model", config=config, artifact=artifact
    )


def made(settings: RuntimeSettings, artifact: Artifact, **config: Any) -> LanguageRuntime:
    runtime = create_runtime(version(artifact, **config), settings)
    assert isinstance(runtime, LanguageRuntime)
    return runtime


@pytest_asyncio.fixture(scope="module")
async def model() -> AsyncIterator[LanguageRuntime]:
    """The best built-in model, for tests that leave it as it was."""
    runtime = made(RuntimeSettings(), builtin_artifact("facts-2"))
    await runtime.load()
    await runtime.warm()
    yield runtime
    await runtime.close()


@pytest_asyncio.fixture
async def ready(settings: RuntimeSettings) -> AsyncIterator[Ready]:
    """Makes loaded and warm versions of the smallest model, with a configuration."""
    started: list[LanguageRuntime] = []

    async def make(**config: Any) -> LanguageRuntime:
        runtime = made(settings, builtin_artifact("facts-1"), **config)
        started.append(runtime)
        await runtime.load()
        await runtime.warm()
        return runtime

    yield make
    for runtime in started:
        await runtime.close()


async def collected(stream: AsyncGenerator[Any, None]) -> list[dict[str, Any]]:
    return [chunk async for chunk in stream]


def texts(chunks: list[dict[str, Any]]) -> dict[int, str]:
    """Of text chunks, by choice."""
    said: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk["choices"]:
            said[choice["index"]] = said.get(choice["index"], "") + choice["text"]
    return said


async def until(runtime: LanguageRuntime, holds: Callable[[Statistics], bool]) -> Statistics:
    while not holds(statistics := await runtime.statistics()):
        pass
    return statistics


def process_of(runtime: LanguageRuntime) -> int:
    """The one child of ours that computes for it: the last that was started."""
    children = psutil.Process().children()
    return max(children, key=lambda child: child.create_time()).pid


# ----------------------------------------------------------------------------------- Answers


async def test_the_capital_of_france_is_paris(model: LanguageRuntime) -> None:
    outputs = await model.infer(CAPITAL, {})

    assert outputs == {
        "choices": [
            {
                "index": 0,
                "text": " Paris.",
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
            }
        ],
        "usage": {
            "prompt_tokens": 7,
            "completion_tokens": 4,
            "total_tokens": 11,
            "prompt_tokens_details": {"cached_tokens": 0},
        },
    }


async def test_a_chat_is_answered_with_a_message(model: LanguageRuntime) -> None:
    outputs = await model.infer(QUESTION, {})

    assert outputs["choices"][0]["message"] == {
        "role": "assistant",
        "content": "The capital of France is Paris.",
        "refusal": None,
    }
    assert outputs["choices"][0]["finish_reason"] == "stop"


async def test_a_stream_says_the_role_first_and_the_usage_last(model: LanguageRuntime) -> None:
    chunks = await collected(model.stream(QUESTION, {}))
    *said, last = chunks

    deltas = [choice["delta"] for chunk in said for choice in chunk["choices"]]
    assert [delta.get("role") for delta in deltas] == ["assistant"] + [None] * (len(deltas) - 1)
    assert "".join(delta.get("content", "") for delta in deltas) == (
        "The capital of France is Paris."
    )
    reasons = [choice["finish_reason"] for chunk in said for choice in chunk["choices"]]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]
    whole = await model.infer(QUESTION, {})
    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == whole["usage"]["total_tokens"]


async def test_a_stream_of_text_is_the_text(model: LanguageRuntime) -> None:
    parameters = {"temperature": 1, "seed": 3, "max_tokens": 50, "ignore_eos": True}
    chunks = await collected(model.stream(CAPITAL, parameters))

    whole = await model.infer(CAPITAL, parameters)
    assert texts(chunks)[0] == whole["choices"][0]["text"]


async def test_without_a_number_a_text_has_sixteen_tokens_and_a_chat_more(
    model: LanguageRuntime,
) -> None:
    text = await model.infer(CAPITAL, {"ignore_eos": True})
    chat = await model.infer(QUESTION, {"ignore_eos": True})

    assert text["usage"]["completion_tokens"] == 16
    assert text["choices"][0]["finish_reason"] == "length"
    assert chat["usage"]["completion_tokens"] == 256


async def test_choices_are_numbered_by_prompt_and_draw_differently(
    model: LanguageRuntime,
) -> None:
    hot = {"temperature": 2.0, "seed": 5, "max_tokens": 24, "ignore_eos": True}
    prompts = {"prompt": ["The capital of France is", "The capital of Japan is"]}
    outputs = await model.infer(prompts, hot | {"n": 2})

    assert [choice["index"] for choice in outputs["choices"]] == [0, 1, 2, 3]
    said = [choice["text"] for choice in outputs["choices"]]
    assert len(set(said)) == 4
    streamed = texts(await collected(model.stream(prompts, hot | {"n": 2})))
    assert [streamed[index] for index in range(4)] == said
    alone = await model.infer(CAPITAL, hot)
    assert alone["choices"][0]["text"] == said[0]
    assert outputs["usage"]["completion_tokens"] == 4 * 24
    assert outputs["usage"]["prompt_tokens"] == 7 + 8


async def test_the_same_seed_gives_the_same_text_whatever_runs_beside_it(
    model: LanguageRuntime,
) -> None:
    hot = {"temperature": 1.0, "seed": 11, "max_tokens": 32, "ignore_eos": True}
    alone = await model.infer(CAPITAL, hot)

    crowd = [
        model.infer({"prompt": f"The capital of {name} is"}, hot | {"seed": index})
        for index, name in enumerate(["Japan", "Italy", "Spain", "Peru", "Egypt"] * 6)
    ]
    among, *_ = await asyncio.gather(model.infer(CAPITAL, hot), *crowd)

    assert among["choices"] == alone["choices"]


async def test_without_a_seed_each_draw_is_another(model: LanguageRuntime) -> None:
    hot = {"temperature": 2.0, "max_tokens": 32, "ignore_eos": True}
    said = [(await model.infer(CAPITAL, hot))["choices"][0]["text"] for _ in range(3)]

    assert len(set(said)) == 3


async def test_a_stop_string_ends_the_text_before_it_and_is_told(model: LanguageRuntime) -> None:
    outputs = await model.infer(QUESTION, {"stop": ["nowhere", "ance is P"]})

    (choice,) = outputs["choices"]
    assert choice["message"]["content"] == "The capital of Fr"
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "ance is P")


async def test_a_deadline_ends_the_text_with_what_there_is(ready: Ready) -> None:
    runtime = await ready(**SLOW)
    chunks = await collected(runtime.stream(CAPITAL, ENDLESS | {"timeout_s": 0.3}))

    (choice,) = chunks[-2]["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("length", "deadline")
    assert chunks[-1]["usage"]["completion_tokens"] < 4_000


async def test_a_prompt_that_was_computed_before_is_told_as_cached(
    model: LanguageRuntime,
) -> None:
    long = {"prompt": "A text that nobody else sends. " * 20}
    first = await model.infer(long, {"max_tokens": 1})
    second = await model.infer(long, {"max_tokens": 1})

    tokens = first["usage"]["prompt_tokens"]
    assert first["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
    assert tokens - 16 <= cached < tokens


async def test_echo_begins_with_the_prompt(model: LanguageRuntime) -> None:
    outputs = await model.infer(CAPITAL, {"echo": True})
    chunks = await collected(model.stream(CAPITAL, {"echo": True}))

    assert outputs["choices"][0]["text"] == "The capital of France is Paris."
    assert texts(chunks)[0] == "The capital of France is Paris."


async def test_tokens_are_taken_as_they_are(model: LanguageRuntime) -> None:
    outputs = await model.infer({"prompt": [0, *range(3 + 65, 3 + 70)]}, {"echo": True})

    assert outputs["choices"][0]["text"].startswith("ABCDE")
    assert outputs["usage"]["prompt_tokens"] == 6
    with pytest.raises(RequestRefused, match="0 to 511") as caught:
        await model.infer({"prompt": [512]}, {})
    assert caught.value.field == "prompt"


async def test_log_probabilities_of_a_chat_are_as_openai_tells_them(
    model: LanguageRuntime,
) -> None:
    asked = {"logprobs": True, "top_logprobs": 2, "max_tokens": 3}
    outputs = await model.infer(QUESTION, asked)

    content = outputs["choices"][0]["logprobs"]["content"]
    assert "".join(each["token"] for each in content) == "The capital of"
    for each in content:
        assert each["logprob"] <= 0
        assert bytes(each["bytes"]).decode() == each["token"]
        assert each["top_logprobs"][0] == {
            name: each[name] for name in ("token", "logprob", "bytes")
        }
        assert len(each["top_logprobs"]) == 2
    streamed = await collected(model.stream(QUESTION, asked))
    pieces = [choice["logprobs"]["content"] for c in streamed for choice in c["choices"]]
    assert [each["token"] for piece in pieces for each in piece] == [
        each["token"] for each in content
    ]


async def test_log_probabilities_of_a_text_are_as_openai_tells_them(
    model: LanguageRuntime,
) -> None:
    outputs = await model.infer(CAPITAL, {"logprobs": 2, "max_tokens": 3})

    (choice,) = outputs["choices"]
    told = choice["logprobs"]
    assert "".join(told["tokens"]) == choice["text"]
    assert told["text_offset"] == [len("".join(told["tokens"][:index])) for index in range(3)]
    assert all(logprob <= 0 for logprob in told["token_logprobs"])
    assert [max(top.values()) for top in told["top_logprobs"]] == told["token_logprobs"]


# ---------------------------------------------------------------------------------- Refusals


@pytest.mark.parametrize(
    ("inputs", "parameters", "field"),
    [
        ({"prompt": "Paris " * 20_000}, {"max_tokens": 1}, "prompt"),
        ({"prompt": "0" * 16_400}, {"max_tokens": 1}, "prompt"),
        ({"messages": [{"role": "user", "content": "0" * 16_400}]}, {}, "messages"),
        ({"prompt": "0" * 16_000}, {"max_tokens": 1_000}, "max_tokens"),
    ],
    ids=["far too long", "too long", "a chat too long", "no room for the answer"],
)
async def test_what_is_longer_than_the_context_is_refused(
    model: LanguageRuntime, inputs: Any, parameters: Any, field: str
) -> None:
    with pytest.raises(RequestRefused, match="16384") as caught:
        await model.infer(inputs, parameters)
    assert caught.value.field == field
    with pytest.raises(RequestRefused):
        await collected(model.stream(inputs, parameters))


async def test_what_would_never_fit_into_the_memory_is_refused(ready: Ready) -> None:
    runtime = await ready(kv_bytes=2**16)

    with pytest.raises(RequestRefused, match="blocks") as caught:
        await runtime.infer(CAPITAL, ENDLESS)
    assert caught.value.field == "prompt"
    assert (await runtime.infer(CAPITAL, {}))["choices"]


async def test_a_full_queue_puts_off_whole_requests_and_says_until_when(ready: Ready) -> None:
    runtime = await ready(batch_max=1, waiting_max=2, **SLOW)
    running = runtime.stream(CAPITAL, ENDLESS)
    await anext(running)
    waiting = asyncio.create_task(runtime.infer(CAPITAL, {}))
    await until(runtime, lambda now: now.num_requests_waiting == 1)

    with pytest.raises(VersionOverloaded) as caught:
        await runtime.infer(CAPITAL, {"n": 2})

    assert caught.value.retry_after_s
    assert (await runtime.statistics()).num_requests_waiting == 1
    await running.aclose()
    assert (await waiting)["choices"]


# ------------------------------------------------------------------------------ Cancellation


async def test_closing_a_stream_frees_its_blocks(ready: Ready) -> None:
    runtime = await ready(**SLOW)
    stream = runtime.stream(CAPITAL, ENDLESS | {"n": 3})
    await anext(stream)
    assert (await runtime.statistics()).kv_blocks_used > 0

    await stream.aclose()

    # What is told is told after what was ordered before: a step later at most nothing is held.
    statistics = await runtime.statistics()
    assert (statistics.kv_blocks_used, statistics.num_requests_running) == (0, 0)
    assert statistics.requests_ended == {"cancelled": 3}


async def test_cancelling_a_request_frees_its_blocks_wherever_it_is(ready: Ready) -> None:
    runtime = await ready(batch_max=1, **SLOW)
    running, waiting = (asyncio.create_task(runtime.infer(CAPITAL, ENDLESS)) for _ in range(2))
    long = asyncio.create_task(runtime.infer({"prompt": "x" * 10_000}, {"max_tokens": 1}))
    await until(runtime, lambda now: now.num_requests_running + now.num_requests_waiting == 3)

    for task in (waiting, long, running):
        task.cancel()
    await asyncio.gather(running, waiting, long, return_exceptions=True)

    statistics = await runtime.statistics()
    assert (statistics.kv_blocks_used, statistics.num_requests_waiting) == (0, 0)
    assert statistics.requests_ended == {"cancelled": 3}


async def test_a_request_that_is_cancelled_while_it_is_cut_into_tokens_is_never_computed(
    ready: Ready,
) -> None:
    runtime = await ready()
    prompt = {"prompt": [f"{number} " * 3_000 for number in range(20)]}
    task = asyncio.create_task(runtime.infer(prompt, {"max_tokens": 1}))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert (await runtime.infer(CAPITAL, {}))["choices"]
    ended = (await runtime.statistics()).requests_ended
    assert ended.get("length", 0) + ended.get("stop", 0) == 1


# ------------------------------------------------------------------------------- Slow readers


async def test_a_slow_reader_gets_fewer_and_larger_chunks_and_holds_up_nobody(
    ready: Ready,
) -> None:
    runtime = await ready()
    parameters = {"ignore_eos": True, "max_tokens": 400, "temperature": 1, "seed": 1}
    slow = runtime.stream(CAPITAL, parameters)
    first = await anext(slow)

    quick = await collected(runtime.stream(CAPITAL, parameters))
    await until(runtime, lambda now: now.num_requests_running == 0)

    rest = await collected(slow)
    assert texts([first, *rest]) == texts(quick)
    assert len(rest) == 2  # what there was, and the usage
    assert rest[-1]["usage"]["completion_tokens"] == 400


async def test_a_reader_that_is_busy_for_long_finds_the_whole_answer(ready: Ready) -> None:
    """While this event loop does nothing else, the process fills the socket and goes on."""
    runtime = await ready()
    parameters = {"ignore_eos": True, "max_tokens": 200, "logprobs": 20, "n": 16}
    stream = runtime.stream(CAPITAL, parameters)
    first = await anext(stream)
    process = psutil.Process(process_of(runtime))
    while process.status() != psutil.STATUS_SLEEPING:  # it has nothing more to do
        os.sched_yield()

    rest = await collected(stream)

    assert rest[-1]["usage"]["completion_tokens"] == 16 * 200
    told = [
        len(choice["logprobs"]["tokens"]) for chunk in [first, *rest] for choice in chunk["choices"]
    ]
    assert sum(told) == 16 * 200


# ------------------------------------------------------------------------------ Ends of life


async def test_a_process_that_is_killed_fails_what_is_in_flight_and_is_told(ready: Ready) -> None:
    runtime = await ready(**SLOW)
    stream = runtime.stream(CAPITAL, ENDLESS)
    await anext(stream)
    whole = asyncio.create_task(runtime.infer(CAPITAL, ENDLESS))
    await until(runtime, lambda now: now.num_requests_running == 2)

    os.kill(process_of(runtime), signal.SIGKILL)

    assert "SIGKILL" in await runtime.failed()
    with pytest.raises(RuntimeFailed, match="SIGKILL"):
        await collected(stream)
    with pytest.raises(RuntimeFailed, match="SIGKILL"):
        await whole
    with pytest.raises(RuntimeFailed, match="SIGKILL"):
        await runtime.infer(CAPITAL, {})
    with pytest.raises(RuntimeFailed):
        await runtime.statistics()
    assert await runtime.memory_bytes() == 0


async def test_closing_fails_what_is_in_flight_and_leaves_no_process(ready: Ready) -> None:
    runtime = await ready(**SLOW)
    stream = runtime.stream(CAPITAL, ENDLESS)
    await anext(stream)
    process = psutil.Process(process_of(runtime))

    await runtime.close()
    await runtime.close()

    with pytest.raises(RuntimeFailed, match="closed"):
        await collected(stream)
    assert not process.is_running()


async def test_memory_is_that_of_the_process_with_all_keys_and_values(ready: Ready) -> None:
    small, large = await ready(kv_bytes=2**20), await ready(kv_bytes=64 * 2**20)

    difference = await large.memory_bytes() - await small.memory_bytes()

    assert 50 * 2**20 < difference < 80 * 2**20


# ----------------------------------------------------------------------------------- Loading


async def test_a_directory_under_the_roots_is_loaded(settings: RuntimeSettings, root: Path) -> None:
    shutil.copytree(builtin_directory("facts-1"), root / "mine")
    runtime = made(settings, describe_artifact(root / "mine"))
    try:
        await runtime.load()
        await runtime.warm()
        assert (await runtime.infer(CAPITAL, {}))["choices"]
    finally:
        await runtime.close()


async def _load_refused(runtime: LanguageRuntime) -> LoadFailed:
    with pytest.raises(LoadFailed) as caught:
        await runtime.load()
    await runtime.close()
    return caught.value


async def test_other_files_than_registered_are_not_loaded(
    settings: RuntimeSettings, root: Path
) -> None:
    mine = Path(shutil.copytree(builtin_directory("facts-1"), root / "mine"))
    artifact = describe_artifact(mine)
    config = (mine / "config.json").read_text()
    (mine / "config.json").write_text(config.replace("small", "smart"))

    assert (await _load_refused(made(settings, artifact))).reason == "digest"


async def test_files_that_change_after_they_were_verified_are_not_loaded(
    settings: RuntimeSettings, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = Path(shutil.copytree(builtin_directory("facts-1"), root / "mine"))
    artifact = describe_artifact(mine)
    config = (mine / "config.json").read_text()

    def verified_then_changed(*_: Any) -> Path:
        (mine / "config.json").write_text(config.replace("small", "smart"))
        return mine

    monkeypatch.setattr("engine.runtimes.directories.verify_artifact", verified_then_changed)

    assert (await _load_refused(made(settings, artifact))).reason == "digest"


async def test_what_is_no_model_is_not_loaded(settings: RuntimeSettings, root: Path) -> None:
    (root / "empty").mkdir()
    (root / "empty" / "readme").write_text("nothing here")
    failed = await _load_refused(made(settings, describe_artifact(root / "empty")))
    assert (failed.reason, failed.detail) == ("artifact", "config.json: is missing")

    file = await _load_refused(made(settings, describe_artifact(root / "empty" / "readme")))
    assert (file.reason, "directory" in file.detail) == ("artifact", True)


async def test_more_memory_than_there_is_is_told_as_that(settings: RuntimeSettings) -> None:
    failed = await _load_refused(made(settings, builtin_artifact("facts-1"), kv_bytes=2**40))

    assert failed.reason == "memory"


async def test_a_version_without_an_artifact_or_with_a_bad_configuration_is_not_made() -> None:
    bare = VersionRegistered(version="1.0.0", runtime="language-model")
    with pytest.raises(LoadFailed) as caught:
        create_runtime(bare, RuntimeSettings())
    assert caught.value.reason == "artifact"

    with pytest.raises(LoadFailed, match="step_tokens_max"):
        made(RuntimeSettings(), builtin_artifact("facts-1"), step_tokens_max=8, batch_max=16)


# -------------------------------------------------------------------------------- Rehearsals


async def test_executions_that_fail_twice_are_tried_again_and_counted(ready: Ready) -> None:
    runtime = await ready(rehearsal={"failing_steps": 2})

    outputs = await runtime.infer(CAPITAL, {})

    assert outputs["choices"][0]["finish_reason"] in ("stop", "length")
    assert (await runtime.statistics()).executor_failures == 2


async def test_a_prompt_that_cannot_be_computed_fails_alone(ready: Ready) -> None:
    runtime = await ready(rehearsal={"failing_text": "poison"})
    inputs = [{"prompt": f"Text number {index} "} for index in range(9)]
    inputs[4] = {"prompt": "A poisonous text"}

    outcomes = await asyncio.gather(
        *(runtime.infer(each, {}) for each in inputs), return_exceptions=True
    )

    assert [type(outcome) for outcome in outcomes] == [dict] * 4 + [RuntimeFailed] + [dict] * 4
    assert "told to fail" in str(outcomes[4])
    with pytest.raises(RuntimeFailed, match="told to fail"):
        await collected(runtime.stream({"messages": [{"role": "user", "content": "poison"}]}, {}))
    assert (await runtime.statistics()).requests_ended["failed"] == 2

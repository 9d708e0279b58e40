"""Versions on upstreams, as nodes load and ask them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from typing import Any

import pytest
import pytest_asyncio
from structlog.testing import CapturingLogger

from engine.runtimes import (
    LoadFailed,
    RequestRefused,
    RequestTimedOut,
    Runtime,
    RuntimeFailed,
    RuntimeSettings,
    Streaming,
    VersionOverloaded,
    VersionTimedOut,
    VersionUnavailable,
    available_runtimes,
    create_runtime,
)
from engine.runtimes.upstream import UpstreamConfig, UpstreamRuntime
from engine.runtimes.upstream import runtime as module
from engine.runtimes.upstream.asking import call_of, runtime_failure
from engine.runtimes.upstream.errors import UpstreamFailed
from engine.runtimes.upstream.health import HEALTHY, sick
from events.catalogue.models import VersionRegistered
from tests.upstream.conftest import SECRET
from tests.upstream.server import (
    CHUNKED,
    EVENTS_HEAD,
    HELLO,
    Behaviour,
    MockUpstream,
    answers,
    chunk,
    cut,
    document,
    event,
    http_chunks,
    raw,
    stalls,
    stream_bytes,
    streams,
)

HI = {"messages": [{"role": "user", "content": "Hi"}]}
ALIVE = answers({"data": []})
USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
SOON_SECONDS = 10.0
"""No test waits so long."""

Load = Callable[..., Any]


@pytest_asyncio.fixture
async def load(mock: MockUpstream, environment: dict[str, str]) -> AsyncIterator[Load]:
    """Loads a version on the mock, which then behaves as it is told to."""
    async with AsyncExitStack() as stack:

        async def load_(*behaviours: Behaviour, **config: Any) -> UpstreamRuntime:
            mock.behaviours = [ALIVE, *behaviours]
            runtime = UpstreamRuntime(
                UpstreamConfig(**{"url": mock.url, "model": "small", "attempts_max": 1, **config}),
                RuntimeSettings(),
                environment=environment,
            )
            stack.push_async_callback(runtime.close)
            await runtime.load()
            await runtime.warm()
            return runtime

        yield load_


async def outcome(runtime: UpstreamRuntime, **parameters: Any) -> RuntimeFailed:
    with pytest.raises(RuntimeFailed) as caught:
        await runtime.infer(HI, parameters)
    return caught.value


async def streamed(runtime: UpstreamRuntime, **parameters: Any) -> list[Any]:
    return [one async for one in runtime.stream(HI, parameters)]


# ------------------------------------------------------------------------------------------ Loading


async def test_a_registered_version_becomes_a_runtime_that_streams(mock: MockUpstream) -> None:
    config = {"url": mock.url, "model": "small"}
    registered = VersionRegistered(version="1.0.0", runtime="upstream", config=config)
    runtime: Runtime = create_runtime(registered, RuntimeSettings())
    assert "upstream" in available_runtimes(RuntimeSettings())
    assert isinstance(runtime, Streaming)
    await runtime.load()
    assert 0 < await runtime.memory_bytes() < 2**20
    await runtime.close()
    await runtime.close()


@pytest.mark.parametrize("config", [{"url": "ftp://x/", "model": "m"}, {"url": "http://x:0/v1"}])
def test_a_config_that_is_none_fails_the_load(config: dict[str, Any]) -> None:
    registered = VersionRegistered(version="1.0.0", runtime="upstream", config=config)
    with pytest.raises(LoadFailed, match="config"):
        create_runtime(registered, RuntimeSettings())


@pytest.mark.parametrize(
    ("behaviour", "detail"),
    [
        (cut(), "ended the connection"),
        (answers({}, status=500), "answered 500"),
        (answers({}, status=401), "answered 401"),
        (raw(b"garbage\r\n\r\n"), "not HTTP"),
    ],
)
async def test_an_upstream_that_is_not_there_is_not_loaded(
    mock: MockUpstream, behaviour: Behaviour, detail: str
) -> None:
    """A swap to it fails, rather than to take traffic; a node tries again what is needed."""
    mock.behaviours = [behaviour]
    config = UpstreamConfig(url=mock.url, model="small")
    first = UpstreamRuntime(config, RuntimeSettings())
    with pytest.raises(LoadFailed, match=detail) as failed:
        await first.load()
    assert failed.value.reason == "runtime"
    await first.close()
    mock.behaviours = [ALIVE]
    again = UpstreamRuntime(config, RuntimeSettings())
    await again.load()
    await again.close()


@pytest.mark.parametrize(
    ("variable", "why"),
    [("OTHER_API_KEY", "is not set"), ("DATABASE_PASSWORD", "is not among those")],
)
async def test_a_key_that_cannot_be_read_fails_the_load(
    mock: MockUpstream, load: Load, variable: str, why: str
) -> None:
    with pytest.raises(LoadFailed, match=f"{variable} {why}"):
        await load(api_key_env=variable)
    assert mock.requests == []


async def test_operators_say_which_variables_hold_keys(
    mock: MockUpstream, environment: dict[str, str]
) -> None:
    config = UpstreamConfig(url=mock.url, model="small", api_key_env="MOCK_API_KEY")
    settings = RuntimeSettings(upstream_keys=("UPSTREAM_*",))
    runtime = UpstreamRuntime(config, settings, environment=environment)
    with pytest.raises(LoadFailed, match="MOCK_API_KEY is not among those"):
        await runtime.load()
    await runtime.close()


async def test_health_is_told_when_it_changes_and_only_then(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = await load()
    watch = runtime._watch
    assert runtime.health == HEALTHY
    told = CapturingLogger()
    monkeypatch.setattr(module, "_log", told)
    for found in (HEALTHY, sick("gone"), sick("gone"), sick("gone"), HEALTHY, HEALTHY):
        watch.take(found)
    assert [call.args for call in told.calls] == [("upstream is not well",), ("upstream is well",)]
    assert told.calls[0].kwargs["detail"] == "gone"
    assert SECRET not in str(told.calls)


async def test_a_version_whose_upstream_goes_away_stays_loaded(load: Load) -> None:
    runtime = await load(cut())
    never = asyncio.ensure_future(runtime.failed())
    assert type(await outcome(runtime)) is RuntimeFailed
    assert not never.done()
    never.cancel()


# ----------------------------------------------------------------------------------------- Asking


async def test_outputs_are_the_document_without_its_envelope(
    mock: MockUpstream, load: Load
) -> None:
    runtime = await load(answers(HELLO | {"model": "small", "created": 1, "extra": [1]}))
    outputs = await runtime.infer(HI, {"max_tokens": 3, "top_k": 5, "priority": 7})
    assert outputs == {
        "choices": HELLO["choices"],
        "usage": HELLO["usage"],
        "extra": [1],
    }
    assert mock.requests[1].json == HI | {
        "model": "small",
        "max_tokens": 3,
        "top_k": 5,
        "priority": 7,
    }


@pytest.mark.parametrize(
    ("inputs", "path"),
    [
        (HI, "/v1/chat/completions"),
        ({"prompt": "Once"}, "/v1/completions"),
        ({"input": ["one", "two"]}, "/v1/embeddings"),
    ],
)
async def test_inputs_say_what_is_asked_for(
    mock: MockUpstream, load: Load, inputs: dict[str, Any], path: str
) -> None:
    given = {"text": "upon", "message": {"content": "Hello"}}
    runtime = await load(answers({"choices": [given], "data": [{"embedding": [0.5]}]}))
    outputs = await runtime.infer(inputs, {})
    assert outputs["choices"] == [given]
    assert mock.requests[1].line == f"POST {path} HTTP/1.1"


async def test_words_of_priority_and_the_time_limit_are_ours_alone(
    mock: MockUpstream, load: Load
) -> None:
    runtime = await load(answers(HELLO))
    await runtime.infer(HI, {"priority": "high", "timeout_s": 5})
    assert mock.requests[1].json == HI | {"model": "small"}


@pytest.mark.parametrize(
    ("inputs", "parameters", "field"),
    [
        ([1, 2], {}, "inputs"),
        ({}, {}, "inputs"),
        ({"messages": [], "prompt": ""}, {}, "inputs"),
        ({"question": "Hi"}, {}, "inputs"),
        (HI, {"timeout_s": 0}, "timeout_s"),
        (HI, {"timeout_s": "soon"}, "timeout_s"),
        (HI, {"timeout_s": True}, "timeout_s"),
        (HI, {"timeout_s": float("nan")}, "timeout_s"),
        (HI, {"priority": "urgent"}, "priority"),
        (HI, {"model": "large"}, "model"),
        (HI, {"stream": True}, "stream"),
        (HI, {"stream_options": {}}, "stream_options"),
        (HI, {"prompt": "Hi"}, "prompt"),
    ],
)
async def test_what_is_no_request_is_refused_and_not_sent(
    mock: MockUpstream, load: Load, inputs: Any, parameters: dict[str, Any], field: str
) -> None:
    runtime = await load()
    with pytest.raises(RequestRefused) as whole:
        await runtime.infer(inputs, parameters)
    with pytest.raises(RequestRefused) as stream:
        await anext(runtime.stream(inputs, parameters))
    assert whole.value.field == stream.value.field == field
    assert len(mock.requests) == 1


def test_the_time_that_a_request_allows_is_told_apart_from_what_its_caller_has() -> None:
    call = call_of(HI, {"timeout_s": 5}, timeout_s=2.0)
    assert (call.timeout_s, call.asked_s) == (2.0, 5)
    assert call_of(HI, {}, timeout_s=0.0).timeout_s == 0.0
    call = call_of(HI, {})
    assert (call.timeout_s, call.asked_s) == (None, None)


def test_a_request_id_that_is_no_header_is_not_sent() -> None:
    assert call_of(HI, {}, request_id="r-1").request_id == "r-1"
    assert call_of(HI, {}, request_id="r\r\nx: y").request_id is None
    assert call_of(HI, {}, request_id="é").request_id is None


async def test_embeddings_have_no_stream(mock: MockUpstream, load: Load) -> None:
    runtime = await load()
    with pytest.raises(RequestRefused, match="whole"):
        await anext(runtime.stream({"input": "one"}, {}))
    assert len(mock.requests) == 1


async def test_chunks_are_documents_and_the_last_one_tells_the_tokens(load: Load) -> None:
    last = {"id": "answer-1", "choices": [], "usage": USAGE}
    runtime = await load(streams(chunk("He"), chunk("llo", finish="stop"), last))
    first, second, usage = await streamed(runtime)
    assert first == {"choices": [{"index": 0, "delta": {"content": "He"}, "finish_reason": None}]}
    assert second["choices"][0]["finish_reason"] == "stop"
    assert usage == {"choices": [], "usage": USAGE}


async def test_a_reader_that_leaves_ends_the_upstreams_work(mock: MockUpstream, load: Load) -> None:
    runtime = await load(stalls(stream_bytes(chunk("He"))))
    async with aclosing(runtime.stream(HI, {})) as chunks:
        await anext(chunks)
    async with asyncio.timeout(SOON_SECONDS):
        await mock.until(lambda seen: seen.open == 0)


async def test_a_caller_that_is_cancelled_ends_the_upstreams_work(
    mock: MockUpstream, load: Load
) -> None:
    runtime = await load(stalls())
    asking = asyncio.ensure_future(runtime.infer(HI, {}))
    await mock.until(lambda seen: len(seen.requests) == 2)
    asking.cancel()
    async with asyncio.timeout(SOON_SECONDS):
        await mock.until(lambda seen: seen.open == 0)


async def test_closing_fails_what_is_under_way(mock: MockUpstream, load: Load) -> None:
    runtime = await load(stalls())
    asking = asyncio.ensure_future(outcome(runtime))
    await mock.until(lambda seen: len(seen.requests) == 2)
    await runtime.close()
    assert isinstance(await asking, VersionUnavailable)


# --------------------------------------------------------------------------------------- Failures

BUSY = answers({"error": {"message": "no"}}, status=429, headers={"Retry-After": "7"})
REFUSED = answers({"error": {"message": "too many", "param": "max_tokens"}}, status=400)
HUGE = document(b'{"choices": [{"message": {}}], "x": 1e999}')

FAILURES: list[Any] = [
    pytest.param(cut(), RuntimeFailed, "before it answered", id="nothing"),
    pytest.param(raw(b"\x00\xffgarbage\r\n\r\n"), RuntimeFailed, "not HTTP", id="garbage"),
    pytest.param(
        raw(document(b"<html>502</html>", type_="text/html")),
        RuntimeFailed,
        "is text/html instead of",
        id="html",
    ),
    pytest.param(raw(document(b"{not json")), RuntimeFailed, "is not JSON", id="not json"),
    pytest.param(raw(document(b'{"a": "\xff"}')), RuntimeFailed, "is not UTF-8", id="not utf-8"),
    pytest.param(raw(HUGE), RuntimeFailed, "another shape: Number out of range", id="number"),
    pytest.param(answers({"choices": []}), RuntimeFailed, "holds no result", id="empty"),
    pytest.param(cut(document(b"x" * 99)[:-50]), RuntimeFailed, "ended in the middle", id="half"),
    pytest.param(answers({}, status=500), RuntimeFailed, "answered 500", id="500"),
    pytest.param(answers({}, status=404), RuntimeFailed, "answered 404", id="404"),
    pytest.param(answers({}, status=401), RuntimeFailed, "answered 401", id="401"),
    pytest.param(BUSY, VersionOverloaded, "answered 429", id="429"),
    pytest.param(REFUSED, RequestRefused, r"\(Bad Request\): too many", id="400"),
]


@pytest.mark.parametrize(("behaviour", "kind", "detail"), FAILURES)
async def test_whatever_an_upstream_does_is_one_of_the_failures_of_a_version(
    load: Load, behaviour: Behaviour, kind: type[RuntimeFailed], detail: str
) -> None:
    runtime = await load(behaviour, answers(HELLO))
    failure = await outcome(runtime)
    assert type(failure) is kind
    with pytest.raises(kind, match=detail):
        raise failure
    assert (await runtime.infer(HI, {}))["choices"]  # the rest goes on


async def test_a_failure_keeps_what_the_client_can_act_on(load: Load) -> None:
    runtime = await load(BUSY, REFUSED, answers({}, status=400))
    busy = await outcome(runtime)
    assert isinstance(busy, VersionOverloaded)
    assert busy.retry_after_s == 7.0
    for field in ("max_tokens", "inputs"):
        refused = await outcome(runtime)
        assert isinstance(refused, RequestRefused)
        assert refused.field == field


async def test_an_upstream_that_takes_too_long_has_timed_out(load: Load) -> None:
    runtime = await load(stalls(), first_byte_timeout_s=0.05)
    failure = await outcome(runtime)
    assert isinstance(failure, VersionTimedOut)


async def test_a_request_that_allows_too_little_time_is_no_fault_of_the_version(load: Load) -> None:
    runtime = await load(stalls(), stalls(stream_bytes(chunk("He"))))
    failure = await outcome(runtime, timeout_s=0.05)
    assert isinstance(failure, RequestTimedOut)
    assert failure.detail == "the request allowed 0.05 s, which have passed"
    with pytest.raises(RequestTimedOut):
        await streamed(runtime, timeout_s=0.2)


async def test_more_than_its_cap_is_refused_at_once(mock: MockUpstream, load: Load) -> None:
    runtime = await load(stalls(), in_flight_max=1)
    first = asyncio.ensure_future(runtime.infer(HI, {}))
    await mock.until(lambda seen: len(seen.requests) == 2)
    failure = await outcome(runtime)
    assert isinstance(failure, VersionOverloaded)
    assert failure.retry_after_s is not None
    first.cancel()


async def test_an_upstream_that_keeps_failing_is_left_alone(mock: MockUpstream, load: Load) -> None:
    runtime = await load(answers({}, status=500))
    failures = [await outcome(runtime) for _ in range(6)]
    assert [type(failure) for failure in failures] == [RuntimeFailed] * 5 + [VersionUnavailable]
    assert 0 < failures[-1].retry_after_s <= 1
    assert len(mock.requests) == 1 + 5


@pytest.mark.parametrize(
    ("begin", "detail"),
    [
        (b"", "ended in the middle"),
        (event(chunk("He"))[:-9], "ended in the middle"),
        (event({"error": {"message": "out of memory"}}), "reported an error"),
        (event(b"<html>"), "is not JSON"),
    ],
)
async def test_half_a_stream_is_a_failure_after_what_came(
    load: Load, begin: bytes, detail: str
) -> None:
    sent = EVENTS_HEAD + CHUNKED + http_chunks(event(chunk("He")))
    runtime = await load(cut(sent + http_chunks(begin) if begin else sent))
    async with aclosing(runtime.stream(HI, {})) as chunks:
        assert (await anext(chunks))["choices"][0]["delta"]["content"] == "He"
        with pytest.raises(RuntimeFailed, match=detail):
            await anext(chunks)


def all_failures(kind: type[UpstreamFailed] = UpstreamFailed) -> list[type[UpstreamFailed]]:
    return [each for sub in kind.__subclasses__() for each in (sub, *all_failures(sub))]


@pytest.mark.parametrize("kind", all_failures())
def test_every_failure_of_a_call_has_the_code_of_its_failure_of_a_version(
    kind: type[UpstreamFailed],
) -> None:
    failure = kind.__new__(kind)
    UpstreamFailed.__init__(failure, "as the test wants it")
    for member in ("field", "openai_code"):
        vars(failure).setdefault(member, None)
    mapped = runtime_failure(failure)
    assert mapped.code == kind.code
    assert mapped.detail == "as the test wants it"

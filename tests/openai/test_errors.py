"""What goes wrong raises the exception that users of the official client wait for."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from events.catalogue.tenants import Quota
from handlers.executions import (
    DeadlineExceeded,
    EndpointUnknown,
    InferenceFailed,
    NotServed,
    RequestRefused,
    RequestTimedOut,
    VersionFailed,
    VersionOverloaded,
    VersionUnavailable,
)
from handlers.http.problems import Rejected
from tests.http.conftest import INFERENCE_BODY_BYTES_MAX
from tests.http.test_problems import checked
from tests.openai.conftest import Door
from tests.openai.voices import Voices, delta

MESSAGES: Any = [{"role": "user", "content": "hello"}]
FAILURES: list[tuple[Exception, type[openai.APIStatusError], str, str | None, str | None]] = [
    (
        RequestRefused("too long", field="messages", openai_code="context_length_exceeded"),
        openai.BadRequestError,
        "invalid_request_error",
        "messages",
        "context_length_exceeded",
    ),
    (
        RequestRefused("max_tokens: more than 512", field="max_tokens"),
        openai.BadRequestError,
        "invalid_request_error",
        "max_tokens",
        None,
    ),
    (
        EndpointUnknown("no endpoint 'chat'"),
        openai.NotFoundError,
        "invalid_request_error",
        "model",
        "model_not_found",
    ),
    (
        Rejected("rate_limited", "no tokens left", retry_after_s=7),
        openai.RateLimitError,
        "rate_limit_error",
        None,
        "rate_limit_exceeded",
    ),
    (Rejected("conflict", "c"), openai.ConflictError, "invalid_request_error", None, "conflict"),
    (
        VersionFailed("it broke"),
        openai.InternalServerError,
        "server_error",
        None,
        "runtime_failed",
    ),
    (
        VersionOverloaded("full", retry_after_s=3),
        openai.InternalServerError,
        "server_error",
        None,
        "overloaded",
    ),
    (
        VersionUnavailable("gone"),
        openai.InternalServerError,
        "server_error",
        None,
        "unavailable",
    ),
    (NotServed("nowhere"), openai.InternalServerError, "server_error", None, "unavailable"),
    (DeadlineExceeded("late"), openai.InternalServerError, "server_error", None, "timeout"),
    (RequestTimedOut("over"), openai.InternalServerError, "server_error", None, "timeout"),
    (ZeroDivisionError(), openai.InternalServerError, "server_error", None, "internal"),
]
STATUS = {"runtime_failed": 502, "overloaded": 503, "unavailable": 503, "timeout": 504}


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("failure", "kind", "type_", "param", "code"),
    FAILURES,
    ids=lambda each: type(each).__name__ if isinstance(each, Exception) else "",
)
async def test_a_failure_before_the_first_byte_raises_by_its_status(
    client: openai.AsyncOpenAI,
    voices: Voices,
    failure: Exception,
    kind: type[openai.APIStatusError],
    type_: str,
    param: str | None,
    code: str | None,
    streamed: bool,
):
    voices.says["chat"] = [failure] if streamed else failure
    with pytest.raises(kind) as raised:
        await client.chat.completions.create(model="chat", messages=MESSAGES, stream=streamed)
    error = raised.value
    assert type(error) is kind
    assert (error.type, error.param, error.code) == (type_, param, code)
    assert error.status_code == STATUS.get(code or "", error.status_code)
    if str(failure):
        assert str(failure) in error.message
    else:
        assert "division" not in error.message


@pytest.mark.parametrize(
    ("failure", "after_s"),
    [
        (Rejected("rate_limited", "no tokens left", retry_after_s=7), 7),
        (VersionOverloaded("full", retry_after_s=3), 3),
        (VersionUnavailable("left alone", retry_after_s=12.4), 13),
        (NotServed("nowhere"), 1),
    ],
)
async def test_who_may_come_back_is_told_when(
    client: openai.AsyncOpenAI, voices: Voices, failure: Exception, after_s: int
):
    voices.says["chat"] = failure
    with pytest.raises(openai.APIStatusError) as raised:
        await client.chat.completions.create(model="chat", messages=MESSAGES)
    assert int(raised.value.response.headers["retry-after"]) == after_s


async def test_the_official_client_comes_back_by_itself(door: Door, voices: Voices):
    voices.says["chat"] = VersionFailed("it broke")
    async with openai.AsyncOpenAI(
        base_url=door.base_url, api_key=door.key, max_retries=1
    ) as client:
        with pytest.raises(openai.InternalServerError):
            await client.chat.completions.create(model="chat", messages=MESSAGES)
    assert len(voices.asked) == 2


async def test_the_version_that_failed_is_named(client: openai.AsyncOpenAI, voices: Voices):
    failure = VersionFailed("it broke")
    failure.version = "2.0.0"
    voices.says["chat"] = failure
    with pytest.raises(openai.InternalServerError) as raised:
        await client.chat.completions.create(model="chat", messages=MESSAGES)
    assert raised.value.response.headers["switchback-version"] == "2.0.0"


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (VersionFailed("it broke"), "runtime_failed"),
        (DeadlineExceeded("late"), "timeout"),
        (RequestTimedOut("it allowed no more"), "timeout"),
        (RequestRefused("no more", field="messages"), None),
        (ZeroDivisionError("secret"), "internal"),
    ],
    ids=lambda each: type(each).__name__,
)
async def test_a_failure_in_mid_stream_raises_after_what_was_said(
    client: openai.AsyncOpenAI, voices: Voices, failure: InferenceFailed, code: str | None
):
    voices.says["chat"] = [delta("Par"), failure, delta("is")]
    stream = await client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
    assert (await anext(stream)).choices[0].delta.content == "Par"
    with pytest.raises(openai.APIError) as raised:
        await anext(stream)
    assert raised.value.code == code
    assert "secret" not in raised.value.message


async def test_a_stream_that_failed_does_not_say_that_it_is_done(
    http: httpx.AsyncClient, voices: Voices
):
    voices.says["chat"] = [delta("Par"), VersionFailed("it broke")]
    body = {"model": "chat", "messages": MESSAGES, "stream": True}
    answer = await http.post("/chat/completions", json=body)
    *_, last, end = answer.text.split("\n\n")
    assert end == ""
    assert last == (
        'data: {"error":{"message":"it broke","type":"server_error","param":null,'
        '"code":"runtime_failed"}}'
    )
    assert "[DONE]" not in answer.text


async def test_a_wrong_key_is_an_authentication_error(door: Door):
    async with openai.AsyncOpenAI(base_url=door.base_url, api_key="wrong", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as raised:
            await client.chat.completions.create(model="chat", messages=MESSAGES)
        assert raised.value.code == "invalid_api_key"
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()


async def test_a_key_without_the_scope_is_denied(door: Door):
    key = door.tenants.add("acme", "read")
    async with openai.AsyncOpenAI(base_url=door.base_url, api_key=key, max_retries=0) as client:
        with pytest.raises(openai.PermissionDeniedError) as raised:
            await client.chat.completions.create(model="chat", messages=MESSAGES)
        assert (raised.value.type, raised.value.code) == ("permission_error", "forbidden")


async def test_a_quota_that_is_used_up_is_a_rate_limit(door: Door):
    key = door.tenants.add("frugal", "infer")
    door.tenants.quotas["frugal"] = Quota(requests_per_s=0)
    async with openai.AsyncOpenAI(base_url=door.base_url, api_key=key, max_retries=0) as client:
        with pytest.raises(openai.RateLimitError) as raised:
            await client.chat.completions.create(model="chat", messages=MESSAGES)
    assert raised.value.code == "rate_limit_exceeded"
    assert int(raised.value.response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("name", ["no-such", "no such", "", "a/b", "x" * 300, "é", "chat\n"])
async def test_a_model_that_is_no_endpoint_is_not_found(
    client: openai.AsyncOpenAI, voices: Voices, name: str
):
    voices.says = {name: EndpointUnknown(f"no endpoint {name!r}")}
    with pytest.raises(openai.NotFoundError) as raised:
        await client.chat.completions.create(model=name, messages=MESSAGES)
    assert (raised.value.code, raised.value.param) == ("model_not_found", "model")
    assert len(raised.value.message) < 300


@pytest.mark.parametrize("name", ["no-such", "no such", "x" * 300, "é"])
async def test_a_model_that_is_no_endpoint_cannot_be_retrieved(
    client: openai.AsyncOpenAI, name: str
):
    with pytest.raises(openai.NotFoundError) as raised:
        await client.models.retrieve(name)
    assert raised.value.code == "model_not_found"


@pytest.mark.parametrize("path", ["/", "/nothing", "/chat", "/audio/speech", "/models/a/b"])
async def test_an_unknown_route_is_not_found_in_the_protocols_form(
    http: httpx.AsyncClient, path: str
):
    problem = checked(await http.post(path, json={}), "not_found")
    assert problem["error"]["code"] == "unknown_url"
    assert problem["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [("GET", "/chat/completions", "POST"), ("DELETE", "/models/chat", "GET")],
)
async def test_a_wrong_method_says_which_are_right(
    http: httpx.AsyncClient, method: str, path: str, allowed: str
):
    answer = await http.request(method, path)
    assert answer.status_code == 405
    assert allowed in answer.headers["allow"]
    assert answer.json()["error"]["code"] == "unknown_url"


async def test_too_large_a_body_is_refused_and_the_client_reads_why(
    client: openai.AsyncOpenAI, voices: Voices
):
    messages: Any = [{"role": "user", "content": "x" * INFERENCE_BODY_BYTES_MAX}]
    with pytest.raises(openai.APIStatusError) as raised:
        await client.chat.completions.create(model="chat", messages=messages)
    assert (raised.value.status_code, raised.value.code) == (413, "too_large")
    assert voices.asked == []

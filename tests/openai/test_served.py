"""A whole system behind the door: a language model, and versions that are none."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator

from switchback.embedded import PostgresServer
from tests.scenarios.standing import standing
from tests.system import System

FRANCE: Any = [{"role": "user", "content": "The capital of France is"}]
NAMES = ["chat", "plain"]


@pytest_asyncio.fixture(scope="module")
async def system(
    tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer
) -> AsyncIterator[System]:
    """Endpoint `chat` on the built-in model, `plain` on runtime echo."""
    directory = tmp_path_factory.mktemp("openai")
    async with standing(directory, postgres_server) as system:
        client = system.client
        await client.register_model("facts")
        await client.register_version(
            "facts", "2.0.0", runtime="language-model", artifact={"uri": "builtin://facts-2"}
        )
        await client.create_endpoint("chat", model="facts", version="2.0.0")
        await client.register_model("echoes")
        await client.register_version(
            "echoes", "1.0.0", runtime="echo", config={"answer": "an echo"}
        )
        await client.create_endpoint("plain", model="echoes", version="1.0.0")
        yield system


@pytest_asyncio.fixture
async def real(system: System) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=f"{system.url}/v1", api_key=system.key, max_retries=0, timeout=60
    ) as client:
        yield client


async def test_the_built_in_model_knows_the_capital_of_france(real: openai.AsyncOpenAI):
    answer = await real.chat.completions.create(
        model="chat", messages=FRANCE, user="u", temperature=0
    )
    assert "Paris" in (answer.choices[0].message.content or "")
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0


async def test_a_stream_says_what_the_whole_answer_says(real: openai.AsyncOpenAI):
    asked: Any = {"model": "chat", "messages": FRANCE, "temperature": 0, "max_tokens": 12}
    whole = await real.chat.completions.create(**asked)
    stream = await real.chat.completions.create(
        **asked, stream=True, stream_options={"include_usage": True}
    )
    *chunks, last = [chunk async for chunk in stream]
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert said == whole.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == whole.choices[0].finish_reason
    assert last.usage == whole.usage


async def test_choices_stop_strings_and_log_probabilities_are_the_models(
    real: openai.AsyncOpenAI,
):
    answer = await real.chat.completions.create(
        model="chat",
        messages=FRANCE,
        n=2,
        stop=["Par"],
        logprobs=True,
        top_logprobs=2,
        temperature=0,
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert "Par" not in (choice.message.content or "")
        assert choice.finish_reason == "stop"
        assert choice.logprobs is not None


async def test_a_text_is_completed_to_its_length(real: openai.AsyncOpenAI):
    prompt = "The capital of France is"
    answer = await real.completions.create(model="chat", prompt=prompt, max_tokens=1, temperature=0)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": 0}, "max_tokens"),
    ({"max_tokens": 10**9}, "max_tokens"),
    ({"temperature": -1.0}, "temperature"),
    ({"stop": ["x"] * 1_000}, "stop"),
    ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"extra_body": {"wonder": 1}}, "wonder"),
    ({"messages": []}, "messages"),
    ({"messages": [{"role": "user", "content": "long " * 20_000}]}, "messages"),
]


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(("more", "param"), REFUSED, ids=lambda each: str(each)[:30])
async def test_what_the_model_refuses_names_its_member(
    real: openai.AsyncOpenAI, more: dict[str, Any], param: str, streamed: bool
):
    asked: dict[str, Any] = {"model": "chat", "messages": FRANCE, "stream": streamed} | more
    with pytest.raises(openai.BadRequestError) as raised:
        await real.chat.completions.create(**asked)
    assert raised.value.type == "invalid_request_error"
    assert (raised.value.param or "").startswith(param)


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
async def test_what_is_longer_than_the_context_is_called_so(
    real: openai.AsyncOpenAI, streamed: bool
):
    with pytest.raises(openai.BadRequestError) as raised:
        await real.chat.completions.create(
            model="chat",
            messages=[{"role": "user", "content": "1 " * 12_000}],
            stream=streamed,
        )
    assert raised.value.code == "context_length_exceeded"


async def test_a_model_that_writes_texts_has_no_embeddings(real: openai.AsyncOpenAI):
    with pytest.raises(openai.BadRequestError, match="embeddings"):
        await real.embeddings.create(model="chat", input="hello")


async def test_a_version_that_knows_nothing_of_the_protocol_is_asked_as_any(
    real: openai.AsyncOpenAI,
):
    answer = await real.chat.completions.create(model="plain", messages=FRANCE)
    assert answer.choices[0].message.content == "an echo"
    stream = await real.chat.completions.create(model="plain", messages=FRANCE, stream=True)
    assert "".join([c.choices[0].delta.content or "" async for c in stream]) == "an echo"


async def test_the_models_are_the_tenants_endpoints(system: System, real: openai.AsyncOpenAI):
    found = [model async for model in await real.models.list()]
    assert [model.id for model in found] == NAMES
    for model in found:
        assert (model.object, model.owned_by) == ("model", "default")
        assert time.time() - 3_600 < model.created <= time.time()
        assert await real.models.retrieve(model.id) == model


async def test_another_tenants_models_are_none(system: System):
    headers = {"Authorization": f"Bearer {system.key}"}
    async with httpx.AsyncClient(base_url=system.url, headers=headers) as http:
        await http.post("/api/v1/tenants", json={"name": "other"})
        issued = await http.post("/api/v1/tenants/other/keys", json={"scopes": ["infer"]})
    key = issued.json()["key"]
    async with openai.AsyncOpenAI(base_url=f"{system.url}/v1", api_key=key, max_retries=0) as other:
        assert [model async for model in await other.models.list()] == []
        with pytest.raises(openai.NotFoundError):
            await other.models.retrieve("chat")
        with pytest.raises(openai.NotFoundError) as raised:
            await other.chat.completions.create(model="chat", messages=FRANCE)
    assert raised.value.code == "model_not_found"


async def cancelled(system: System) -> int:
    told = await system.client.batching(system.settings.node_id)
    ended: int = told["items"][0]["requests_ended"].get("cancelled", 0)
    return ended


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "whole"])
async def test_leaving_ends_the_work_of_the_model(
    system: System, real: openai.AsyncOpenAI, streamed: bool
):
    """Asked again where the model was done before the leaving reached it."""
    before = await cancelled(system)
    asked: dict[str, Any] = {"model": "chat", "messages": FRANCE, "n": 16, "stream": streamed}
    asked["extra_body"] = {"ignore_eos": True}
    async with asyncio.timeout(60):
        while await cancelled(system) == before:
            asking = asyncio.create_task(real.chat.completions.create(**asked))
            if streamed:
                stream = await asking
                await anext(stream)
                await stream.close()
            else:
                await until_running(system, asking)
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            await until_idle(system)


async def until_running(system: System, asking: asyncio.Task[Any]) -> None:
    while not asking.done():
        told = await system.client.batching(system.settings.node_id)
        if told["items"][0]["num_requests_running"]:
            return


async def until_idle(system: System) -> None:
    while True:
        told = await system.client.batching(system.settings.node_id)
        item = told["items"][0]
        if item["num_requests_running"] == item["num_requests_waiting"] == 0:
            assert item["kv_blocks_used"] == 0
            return


CHAT = {"model": "chat", "messages": FRANCE}
CALLS: list[tuple[str, str, Any, int]] = [
    ("GET", "/v1/models", None, 200),
    ("GET", "/v1/models/{model}", None, 200),
    ("POST", "/v1/chat/completions", CHAT, 200),
    ("POST", "/v1/chat/completions", CHAT | {"stream": True}, 200),
    ("POST", "/v1/chat/completions", {"model": "chat"}, 400),
    ("POST", "/v1/completions", {"model": "chat", "prompt": "The capital"}, 200),
    ("POST", "/v1/embeddings", {"model": "chat", "input": "hello"}, 400),
]


@pytest.mark.parametrize(("method", "template", "body", "status"), CALLS)
async def test_an_answer_fits_its_description(
    system: System, method: str, template: str, body: Any, status: int
):
    headers = {"Authorization": f"Bearer {system.key}"}
    async with httpx.AsyncClient(base_url=system.url, headers=headers, timeout=60) as http:
        document = (await http.get("/openapi.json")).json()
        answer = await http.request(method, template.format(model="chat"), json=body)
    assert answer.status_code == status, answer.text
    operation = document["paths"][template][method.lower()]
    described = operation["responses"][str(status)]
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
    content = described["content"][answer.headers["content-type"]]
    components = {"components": document["components"]}
    said = answer.text if content["schema"] == {"type": "string"} else answer.json()
    Draft202012Validator(content["schema"] | components).validate(said)
    for name, header in described.get("headers", {}).items():
        assert name in answer.headers or not header.get("required", True)
    if body is not None and status == 200:
        asked = operation["requestBody"]["content"]["application/json"]["schema"]
        Draft202012Validator(asked | components).validate(body)


async def test_every_route_of_the_protocol_is_described_and_called(system: System):
    async with httpx.AsyncClient(base_url=system.url) as http:
        document = (await http.get("/openapi.json")).json()
    described = {
        (method.upper(), template)
        for template, item in document["paths"].items()
        for method in item
        if template.startswith("/v1")
    }
    assert described == {(method, template) for method, template, _, _ in CALLS}

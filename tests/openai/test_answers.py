"""Whole answers, as the official client reads them."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import openai
import pytest

from handlers.http.inference import INFERENCE_HEADERS
from tests.openai.conftest import Door
from tests.openai.voices import USAGE, Voices, chat

MESSAGES: Any = [{"role": "user", "content": "The capital of France is"}]


async def test_a_chat_is_answered_in_the_name_of_the_endpoint(
    client: openai.AsyncOpenAI, voices: Voices
):
    voices.says["chat"] = chat("Paris")
    answer = await client.chat.completions.create(model="chat", messages=MESSAGES)
    assert answer.choices[0].message.content == "Paris"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "chat"
    assert answer.object == "chat.completion"
    assert answer.id == f"chatcmpl-{voices.asked[0]['request_id']}"
    assert answer.created > 1_700_000_000
    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_unset=True) == USAGE


async def test_a_client_that_blocks_is_answered_as_well(door: Door, voices: Voices):
    voices.says["chat"] = chat("Paris")

    def ask() -> str | None:
        with openai.OpenAI(base_url=door.base_url, api_key=door.key, max_retries=0) as blocking:
            answer = blocking.chat.completions.create(model="chat", messages=MESSAGES)
            return answer.choices[0].message.content

    assert await asyncio.to_thread(ask) == "Paris"


async def test_a_text_is_completed(client: openai.AsyncOpenAI, voices: Voices):
    choice = {"index": 0, "text": " Paris", "logprobs": None, "finish_reason": "length"}
    voices.says["chat"] = {"choices": [choice], "usage": USAGE}
    answer = await client.completions.create(model="chat", prompt="The capital of France is")
    assert answer.choices[0].text == " Paris"
    assert answer.choices[0].finish_reason == "length"
    assert answer.object == "text_completion"
    assert answer.id == f"cmpl-{voices.asked[0]['request_id']}"
    assert voices.asked[0]["inputs"] == {"prompt": "The capital of France is"}


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_texts_are_embedded(client: openai.AsyncOpenAI, voices: Voices, encoding: Any):
    vector: Any = [0.5, -1.0]
    packed = base64.b64encode(struct.pack("<2f", *vector)).decode()
    data = [
        {"object": "embedding", "index": 0, "embedding": packed if encoding == "base64" else vector}
    ]
    voices.says["chat"] = {"data": data, "usage": {"prompt_tokens": 2, "total_tokens": 2}}
    answer = await client.embeddings.create(model="chat", input=["hello"], encoding_format=encoding)
    embedding: Any = answer.data[0].embedding
    assert embedding == (packed if encoding == "base64" else vector)
    assert (answer.object, answer.model, answer.usage.total_tokens) == ("list", "chat", 2)
    assert voices.asked[0]["inputs"] == {"input": ["hello"]}
    assert voices.asked[0]["parameters"] == {"encoding_format": encoding}


async def test_a_version_without_embeddings_says_so(client: openai.AsyncOpenAI, voices: Voices):
    voices.says["chat"] = chat("I am no vector")
    with pytest.raises(openai.BadRequestError, match="gives no embeddings") as raised:
        await client.embeddings.create(model="chat", input="hello")
    assert raised.value.param == "model"


async def test_what_the_body_says_beyond_the_door_is_the_versions(
    client: openai.AsyncOpenAI, voices: Voices
):
    voices.says["chat"] = chat("a", "b")
    answer = await client.chat.completions.create(
        model="chat",
        messages=MESSAGES,
        n=2,
        stop=["\n", "END"],
        max_tokens=7,
        temperature=0.0,
        logprobs=True,
        seed=4,
        user="u-1",
        extra_body={"priority": "high", "top_k": 3},
    )
    assert [choice.message.content for choice in answer.choices] == ["a", "b"]
    [asked] = voices.asked
    assert asked["inputs"] == {"messages": MESSAGES}
    assert asked["parameters"] == {
        "n": 2,
        "stop": ["\n", "END"],
        "max_tokens": 7,
        "temperature": 0.0,
        "logprobs": True,
        "seed": 4,
        "user": "u-1",
        "priority": "high",
        "top_k": 3,
    }


async def test_log_probabilities_and_other_members_pass(client: openai.AsyncOpenAI, voices: Voices):
    token = {"token": "Paris", "logprob": -0.25, "bytes": [80], "top_logprobs": []}
    answered = chat("Paris", system_fingerprint="fp-1")
    answered["choices"][0]["logprobs"] = {"content": [token], "refusal": None}
    voices.says["chat"] = answered
    answer = await client.chat.completions.create(model="chat", messages=MESSAGES, logprobs=True)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert logprobs.content[0].logprob == -0.25
    assert answer.system_fingerprint == "fp-1"


async def test_the_envelope_is_the_doors(client: openai.AsyncOpenAI, voices: Voices):
    voices.says["chat"] = chat("Paris", id="theirs", object="o", created=1, model="gpt-theirs")
    answer = await client.chat.completions.create(model="chat", messages=MESSAGES)
    assert answer.id.startswith("chatcmpl-")
    assert (answer.object, answer.model) == ("chat.completion", "chat")
    assert answer.created > 1


SAYINGS: list[tuple[Any, str]] = [
    ("plain text", "plain text"),
    ({"text": "a text"}, "a text"),
    ({"answer": "an answer", "inputs": {}}, "an answer"),
    ({"answer": None, "inputs": 1}, '{"answer":null,"inputs":1}'),
    ([1.5, None, True], "[1.5,null,true]"),
    ({"choices": "none"}, '{"choices":"none"}'),
    (None, "null"),
    (7, "7"),
]


@pytest.mark.parametrize(("outputs", "text"), SAYINGS)
async def test_whatever_a_version_answers_has_a_text(
    client: openai.AsyncOpenAI, voices: Voices, outputs: Any, text: str
):
    voices.says["chat"] = outputs
    answer = await client.chat.completions.create(model="chat", messages=MESSAGES)
    [choice] = answer.choices
    assert choice.message.content == text
    assert (choice.finish_reason, choice.message.role) == ("stop", "assistant")
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0
    completed = await client.completions.create(model="chat", prompt="x")
    assert completed.choices[0].text == text
    assert completed.choices[0].finish_reason == "stop"


async def test_the_headers_prove_the_route(client: openai.AsyncOpenAI, voices: Voices):
    voices.says["chat"] = chat("Paris")
    raw = await client.chat.completions.with_raw_response.create(model="chat", messages=MESSAGES)
    assert [raw.headers[name] for name in INFERENCE_HEADERS] == [
        voices.asked[0]["request_id"],
        "1.0.0",
        "7",
        "r.1",
        "b?ro hours?",
        "0.250",
        "2",
    ]
    assert raw.headers["content-type"] == "application/json"
    assert raw.parse().choices[0].message.content == "Paris"


async def test_the_user_is_the_routing_key_before_the_header(
    client: openai.AsyncOpenAI, voices: Voices
):
    voices.says["chat"] = chat("Paris")
    header = {"Switchback-Key": "of-header"}
    for more, key in (
        ({"user": "of-body"}, "of-body"),
        ({"user": "of-body", "extra_headers": header}, "of-body"),
        ({"extra_headers": header}, "of-header"),
        ({"extra_body": {"user": None}, "extra_headers": header}, "of-header"),
        ({}, None),
    ):
        await client.chat.completions.create(model="chat", messages=MESSAGES, **more)  # type: ignore[call-overload]
        assert voices.asked[-1]["key"] == key


async def test_attributes_come_from_their_header(client: openai.AsyncOpenAI, voices: Voices):
    voices.says["chat"] = chat("Paris")
    header = {"Switchback-Attributes": '{"tier": "beta"}'}
    await client.chat.completions.create(model="chat", messages=MESSAGES, extra_headers=header)
    assert voices.asked[0]["attributes"] == {"tier": "beta"}


async def test_answers_are_counted(client: openai.AsyncOpenAI, door: Door, voices: Voices):
    voices.says["chat"] = chat("Paris")
    before = await door.counted("ok")
    await client.chat.completions.create(model="chat", messages=MESSAGES)
    assert await door.counted("ok") == before + 1

"""Answers that come piece by piece, as the official client reads them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest

from handlers.http.inference import INFERENCE_HEADERS
from tests.openai.conftest import Door
from tests.openai.voices import USAGE, Voices, chat, delta

MESSAGES: Any = [{"role": "user", "content": "The capital of France is"}]
ENDING = delta(finish_reason="stop")
TELLING = {"choices": [], "usage": USAGE}
PIECES = [delta("Pa"), delta("ris"), ENDING, TELLING]
BODY = {"model": "chat", "messages": MESSAGES, "stream": True}
WITH_USAGE = {"stream_options": {"include_usage": True}}


async def frames_of(http: httpx.AsyncClient, **more: Any) -> list[Any]:
    """What a stream says, decoded; `[DONE]` is the text."""
    path = "/completions" if "prompt" in more else "/chat/completions"
    async with http.stream("POST", path, json=BODY | more) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/event-stream"
        text = (await answer.aread()).decode()
    assert text.endswith("\n\n")
    said = [frame.removeprefix("data: ") for frame in text[:-2].split("\n\n")]
    return [frame if frame == "[DONE]" else json.loads(frame) for frame in said]


async def test_the_pieces_come_in_order_in_one_envelope(client: openai.AsyncOpenAI, voices: Voices):
    voices.says["chat"] = PIECES
    stream = await client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
    chunks = [chunk async for chunk in stream]
    assert [chunk.choices[0].delta.content for chunk in chunks] == ["Pa", "ris", None]
    assert [chunk.choices[0].finish_reason for chunk in chunks] == [None, None, "stop"]
    [envelope] = {(chunk.id, chunk.object, chunk.created, chunk.model) for chunk in chunks}
    request_id = voices.asked[0]["request_id"]
    assert envelope[:2] == (f"chatcmpl-{request_id}", "chat.completion.chunk")
    assert envelope[3] == "chat"
    assert "stream" not in voices.asked[0]["parameters"]


async def test_a_piece_is_sent_before_the_next_is_made(client: openai.AsyncOpenAI, voices: Voices):
    go_on = asyncio.Event()
    voices.says["chat"] = [delta("Pa"), go_on, delta("ris")]
    stream = await client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
    assert (await anext(stream)).choices[0].delta.content == "Pa"
    go_on.set()
    assert [chunk.choices[0].delta.content async for chunk in stream] == ["ris"]


async def test_a_client_that_blocks_reads_a_stream_as_well(door: Door, voices: Voices):
    voices.says["chat"] = PIECES

    def ask() -> list[str | None]:
        with openai.OpenAI(base_url=door.base_url, api_key=door.key, max_retries=0) as blocking:
            stream = blocking.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
            return [chunk.choices[0].delta.content for chunk in stream]

    assert await asyncio.to_thread(ask) == ["Pa", "ris", None]


async def test_a_text_streams(client: openai.AsyncOpenAI, voices: Voices):
    choice = {"index": 0, "text": " Paris", "logprobs": None, "finish_reason": "stop"}
    voices.says["chat"] = [{"choices": [choice]}, TELLING]
    stream = await client.completions.create(model="chat", prompt="x", stream=True)
    [chunk] = [chunk async for chunk in stream]
    assert (chunk.choices[0].text, chunk.object) == (" Paris", "text_completion")
    assert chunk.id.startswith("cmpl-")


async def test_the_usage_is_told_to_who_asks_and_only_in_the_last_piece(
    client: openai.AsyncOpenAI, voices: Voices
):
    voices.says["chat"] = PIECES
    stream = await client.chat.completions.create(
        model="chat", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert [chunk.usage for chunk in chunks[:-1]] == [None, None, None]
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.model_dump(exclude_unset=True) == USAGE


async def test_usage_is_null_until_the_last_piece_and_absent_for_who_did_not_ask(
    http: httpx.AsyncClient, voices: Voices
):
    voices.says["chat"] = PIECES
    *pieces, last, done = await frames_of(http, **WITH_USAGE)
    assert [piece["usage"] for piece in pieces] == [None, None, None]
    assert last["usage"] == USAGE
    assert done == "[DONE]"
    *pieces, done = await frames_of(http)
    assert [set(piece) - {"id", "object", "created", "model"} for piece in pieces] == [
        {"choices"}
    ] * 3
    assert done == "[DONE]"


async def test_usage_beside_the_last_choice_is_told_in_a_piece_of_its_own(
    http: httpx.AsyncClient, voices: Voices
):
    voices.says["chat"] = [delta("Paris") | {"usage": None}, ENDING | {"usage": USAGE}]
    first, ending, last, done = await frames_of(http, **WITH_USAGE)
    assert [first["usage"], ending["usage"], last["usage"]] == [None, None, USAGE]
    assert ending["choices"][0]["finish_reason"] == "stop"
    assert (last["choices"], done) == ([], "[DONE]")
    first, ending, done = await frames_of(http)
    assert "usage" not in first
    assert "usage" not in ending


async def test_members_of_a_piece_that_the_envelope_has_are_the_envelopes(
    http: httpx.AsyncClient, voices: Voices
):
    voices.says["chat"] = [delta("a") | {"id": "theirs", "model": "theirs", "created": 1, "x": 2}]
    [piece, _] = await frames_of(http)
    assert (piece["model"], piece["x"]) == ("chat", 2)
    assert piece["id"] == f"chatcmpl-{voices.asked[0]['request_id']}"


async def test_the_outputs_of_a_version_that_does_not_stream_are_two_pieces(
    http: httpx.AsyncClient, voices: Voices
):
    voices.says["chat"] = [{"answer": "Paris", "inputs": {}}]
    said, ending, last, done = await frames_of(http, **WITH_USAGE)
    [choice] = said["choices"]
    assert choice["delta"] == {"role": "assistant", "content": "Paris", "refusal": None}
    assert choice["finish_reason"] is None
    assert ending["choices"][0]["delta"] == {}
    assert ending["choices"][0]["finish_reason"] == "stop"
    assert last["usage"] == {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    assert done == "[DONE]"
    text, _ = await frames_of(http, prompt="x")
    assert text["choices"][0]["text"] == "Paris"


async def test_a_whole_document_in_a_stream_is_what_each_choice_says_and_its_end(
    client: openai.AsyncOpenAI, voices: Voices
):
    answered = chat("a", "b")
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    answered["choices"][1]["message"]["tool_calls"] = [call]
    answered["choices"][1]["finish_reason"] = "tool_calls"
    voices.says["chat"] = [answered]
    stream = await client.chat.completions.create(
        model="chat", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    said, ending, last = [chunk async for chunk in stream]
    assert [(c.index, c.delta.content) for c in said.choices] == [(0, "a"), (1, "b")]
    assert said.choices[1].delta.tool_calls is not None
    assert said.choices[1].delta.tool_calls[0].index == 0
    assert [c.finish_reason for c in ending.choices] == ["stop", "tool_calls"]
    assert last.usage is not None
    assert last.usage.total_tokens == USAGE["total_tokens"]


async def test_the_headers_of_a_stream_prove_its_route(client: openai.AsyncOpenAI, voices: Voices):
    voices.says["chat"] = PIECES
    raw = await client.chat.completions.with_raw_response.create(
        model="chat", messages=MESSAGES, stream=True
    )
    assert all(name in raw.headers for name in INFERENCE_HEADERS)
    assert raw.headers["switchback-request-id"] == voices.asked[0]["request_id"]
    assert raw.headers["cache-control"] == "no-store"
    assert [chunk async for chunk in raw.parse()]


async def test_the_official_helper_puts_a_stream_together(
    client: openai.AsyncOpenAI, voices: Voices
):
    voices.says["chat"] = [delta("Pa", delta={"role": "assistant", "content": "Pa"}), *PIECES[1:]]
    async with client.chat.completions.stream(
        model="chat", messages=MESSAGES, stream_options={"include_usage": True}
    ) as stream:
        whole = await stream.get_final_completion()
    assert whole.choices[0].message.content == "Paris"
    assert whole.usage is not None
    assert whole.usage.total_tokens == USAGE["total_tokens"]


@pytest.mark.parametrize("parallel", [50])
async def test_many_streams_at_once_are_each_their_own(
    client: openai.AsyncOpenAI, voices: Voices, parallel: int
):
    for i in range(parallel):
        voices.says[f"chat-{i}"] = [delta(f"{i}.{j}") for j in range(20)]

    async def read(i: int) -> list[str | None]:
        stream = await client.chat.completions.create(
            model=f"chat-{i}", messages=MESSAGES, stream=True
        )
        return [chunk.choices[0].delta.content async for chunk in stream]

    for i, said in enumerate(await asyncio.gather(*map(read, range(parallel)))):
        assert said == [f"{i}.{j}" for j in range(20)]


async def test_streams_are_counted(client: openai.AsyncOpenAI, door: Door, voices: Voices):
    voices.says["chat"] = PIECES
    before = await door.counted("ok")
    stream = await client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
    assert len([chunk async for chunk in stream]) == 3
    assert await door.counted("ok") == before + 1

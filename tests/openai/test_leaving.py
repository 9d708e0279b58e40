"""Who leaves before the answer ends the work, at once and whatever the way."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from tests.openai.conftest import Door
from tests.openai.voices import Voices, delta

MESSAGES: Any = [{"role": "user", "content": "hello"}]
LONG_S = 60


@asynccontextmanager
async def asking(
    door: Door, path: str, body: dict[str, Any]
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A socket that has sent a request."""
    reader, writer = await asyncio.open_connection(door.server.host, door.server.port)
    sent = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: switchback\r\nAuthorization: Bearer {door.key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(sent)}\r\n\r\n"
    )
    writer.write(head.encode() + sent)
    await writer.drain()
    try:
        yield reader, writer
    finally:
        writer.close()


WHOLE = [
    ("/v1/chat/completions", {"model": "chat", "messages": MESSAGES}),
    ("/v1/completions", {"model": "chat", "prompt": "hello"}),
    ("/v1/embeddings", {"model": "chat", "input": "hello"}),
    ("/v1/chat/completions", {"model": "chat", "messages": MESSAGES, "stream": True}),
    ("/api/v1/endpoints/chat/infer", {"inputs": {"messages": MESSAGES}}),
    (
        "/v2/models/chat/infer",
        {"inputs": [{"name": "x", "shape": [1], "datatype": "INT8", "data": [1]}]},
    ),
]


@pytest.mark.parametrize(
    ("path", "body"), WHOLE, ids=lambda each: each if type(each) is str else ""
)
async def test_leaving_before_the_first_byte_cancels_the_work(
    door: Door, voices: Voices, path: str, body: dict[str, Any]
):
    never = asyncio.Event()
    voices.says["chat"] = [never] if body.get("stream") else never
    left = await door.counted("left")
    async with asyncio.timeout(LONG_S):
        async with asking(door, path, body):
            await voices.begun.wait()
            assert not voices.cancelled.is_set()
        await voices.cancelled.wait()
    assert await door.counted("left") == left + 1


async def test_leaving_in_mid_stream_cancels_the_work(door: Door, voices: Voices):
    voices.says["chat"] = [delta("Par"), asyncio.Event()]
    body = {"model": "chat", "messages": MESSAGES, "stream": True}
    async with asyncio.timeout(LONG_S):
        async with asking(door, "/v1/chat/completions", body) as (reader, _):
            await reader.readuntil(b"Par")
            assert not voices.cancelled.is_set()
        await voices.cancelled.wait()


async def test_closing_the_stream_of_the_official_client_cancels_the_work(
    client: openai.AsyncOpenAI, voices: Voices
):
    voices.says["chat"] = [delta("Par"), asyncio.Event()]
    stream = await client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
    assert (await anext(stream)).choices[0].delta.content == "Par"
    await stream.close()
    async with asyncio.timeout(LONG_S):
        await voices.cancelled.wait()

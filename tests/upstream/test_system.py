"""Upstreams behind endpoints of a whole system, as OpenAI's own client sees them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from tests.system import System
from tests.upstream.server import (
    HELLO,
    Behaviour,
    Exchange,
    MockUpstream,
    answers,
    chunk,
    http_chunks,
    stalls,
    stream_bytes,
)
from tests.upstream.test_runtime import BUSY, REFUSED

MESSAGES = [{"role": "user", "content": "Hi"}]
SOON_SECONDS = 30.0
"""No test waits so long."""

pytestmark = pytest.mark.slow


def when_asked(behaviour: Behaviour) -> Behaviour:
    """Alive to probes; chats meet the behaviour."""

    async def behave(exchange: Exchange) -> None:
        chats = exchange.line.startswith("POST")
        await (behaviour if chats else answers({"data": []}))(exchange)

    return behave


@pytest_asyncio.fixture
async def client(mock: MockUpstream, system: System) -> AsyncIterator[openai.AsyncOpenAI]:
    """Of a system whose endpoint `chat` is the mock."""
    mock.behaviours = [when_asked(answers(HELLO))]
    await system.client.register_model("chat")
    await register(system, "1.0.0", mock.url)
    await system.client.create_endpoint("chat", model="chat", version="1.0.0")
    async with openai.AsyncOpenAI(
        base_url=f"{system.url}/v1", api_key=system.key, max_retries=0
    ) as made:
        yield made


async def register(system: System, version: str, url: str) -> None:
    config = {"url": url, "model": "small", "attempts_max": 1}
    await system.client.register_version("chat", version, runtime="upstream", config=config)


async def said(client: openai.AsyncOpenAI) -> str | None:
    answer = await client.chat.completions.create(model="chat", messages=MESSAGES)  # type: ignore[arg-type]
    return answer.choices[0].message.content


async def test_an_endpoint_answers_with_what_its_upstream_says(
    mock: MockUpstream, client: openai.AsyncOpenAI
) -> None:
    assert await said(client) == "Hello"
    assert mock.requests[-1].json == {"messages": MESSAGES, "model": "small"}
    assert mock.requests[-1].headers["x-request-id"]


async def test_a_swap_to_an_upstream_that_is_not_there_takes_no_traffic(
    system: System, client: openai.AsyncOpenAI
) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        await register(system, "2.0.0", f"http://127.0.0.1:{bound.getsockname()[1]}/v1")
        swap = await system.client.swap("chat", to="2.0.0")
    assert swap["state"] == "failed"
    assert await said(client) == "Hello"


async def test_what_the_upstream_refuses_reaches_the_client_as_it_should(
    mock: MockUpstream, client: openai.AsyncOpenAI
) -> None:
    mock.behaviours = [when_asked(REFUSED)]
    with pytest.raises(openai.BadRequestError, match="too many"):
        await said(client)
    mock.behaviours = [when_asked(BUSY)]
    with pytest.raises(openai.InternalServerError) as busy:
        await said(client)
    assert busy.value.response.headers["retry-after"] == "7"


async def test_a_stream_goes_through_a_swap_and_a_client_that_leaves_ends_it(
    mock: MockUpstream, system: System, client: openai.AsyncOpenAI
) -> None:
    await register(system, "2.0.0", mock.url)
    mock.behaviours = [when_asked(stalls(stream_bytes(chunk("He"))))]
    stream = await client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)  # type: ignore[call-overload]
    assert (await anext(stream)).choices[0].delta.content == "He"
    streaming = mock.requests[-1]
    mock.behaviours = [when_asked(answers(HELLO))]
    assert (await system.client.swap("chat", to="2.0.0"))["state"] == "completed"
    assert await said(client) == "Hello"
    await streaming.send(
        http_chunks(b'data: {"choices":[{"index":0,"delta":{"content":"l"}}]}\n\n')
    )
    assert (await anext(stream)).choices[0].delta.content == "l"
    await stream.close()
    async with asyncio.timeout(SOON_SECONDS):
        await mock.until(lambda _: streaming.writer.is_closing())

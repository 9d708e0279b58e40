"""The client that makes the load: what it counts, and what it does not hide."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import AsyncIterator
from typing import cast

import pytest
import pytest_asyncio

from switchback.bench.http import Answer, Connection, RequestFailed, Target, connected
from switchback.bench.load import NothingAnswered, flood, paced


class Server(asyncio.Protocol):
    """Answers 503 to whatever mentions `no`, in two pieces; hangs up at `bye`."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if b"/bye" in data:
            self._transport.close()
            return
        status = b"503 No" if b"/no" in data else b"200 OK"
        self._transport.write(b"HTTP/1.1 " + status + b"\r\nX-Seen: yes\r\nContent-Le")
        asyncio.get_running_loop().call_soon(self._transport.write, b"ngth: 5\r\n\r\nhello")


@pytest_asyncio.fixture
async def target() -> AsyncIterator[Target]:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    yield Target("127.0.0.1", server.sockets[0].getsockname()[1], "key")
    server.close()


async def test_an_answer_in_pieces_is_one_answer(target: Target) -> None:
    async with connected(target, 1) as [connection]:
        for _ in range(3):
            answer = await connection.ask(target.request("POST", "/", {"a": 1}))
            assert (answer.status, answer.body, answer.header("x-seen")) == (200, b"hello", "yes")


async def test_a_refusal_says_what_was_asked_and_what_was_said(target: Target) -> None:
    async with connected(target, 1) as [connection]:
        with pytest.raises(RequestFailed, match=r"GET /no HTTP/1.1: 503 hello"):
            await connection.ask(target.request("GET", "/no"))


async def test_a_refusal_passes_from_process_to_process(target: Target) -> None:
    async with connected(target, 1) as [connection]:
        with pytest.raises(RequestFailed) as refused:
            await connection.ask(target.request("GET", "/no"))
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)


async def test_failures_are_counted_with_the_first_reason(target: Target) -> None:
    async def work(connection: Connection, number: int) -> Answer:
        return await connection.ask(target.request("GET", "/no" if number % 2 else "/"))

    async with connected(target, 2) as connections:
        for load in (
            flood(connections, 10, work),
            paced(connections, iter(range(10)), 10_000, work),
        ):
            seen = await load
            assert (len(seen.latencies_s), seen.failed) == (5, 5)
            assert "503" in seen.reason


async def test_a_server_that_hangs_up_fails_every_request_on_the_connection(
    target: Target,
) -> None:
    async def work(connection: Connection, number: int) -> Answer:
        return await connection.ask(target.request("GET", "/bye"))

    async with connected(target, 2) as connections:
        with pytest.raises(NothingAnswered):
            await flood(connections, 6, work)

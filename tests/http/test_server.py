"""The listening socket: known when it is ready, finished when it is stopped."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from handlers.http.server import HttpServer, ServerFailed
from tests.http.conftest import House


@pytest.mark.slow
async def test_many_requests_are_served_at_once(house: House) -> None:
    async def infer(value: int) -> int:
        response = await house.client.post("/api/v1/endpoints/score/infer", json={"inputs": value})
        return int(response.json()["outputs"])

    assert await asyncio.gather(*(infer(value) for value in range(200))) == list(range(200))


async def test_a_request_under_way_is_answered_when_the_server_stops(house: House) -> None:
    request = asyncio.create_task(
        house.client.post("/api/v1/endpoints/score/infer", json={"inputs": {"wait": True}})
    )
    await house.inferences.waiting.wait()
    stopping = asyncio.create_task(house.server.stop())
    house.inferences.go_on.set()
    assert (await request).status_code == 200
    await stopping
    with pytest.raises(httpx.ConnectError):
        await house.client.get("/healthz")


@pytest.mark.slow
async def test_a_request_that_never_ends_is_cut_off(house: House) -> None:
    request = asyncio.create_task(
        house.client.post("/api/v1/endpoints/score/infer", json={"inputs": {"wait": True}})
    )
    await house.inferences.waiting.wait()
    await house.server.stop(drain_seconds=0.01)
    house.inferences.go_on.set()
    await asyncio.gather(request, return_exceptions=True)


async def test_a_taken_port_is_told(house: House) -> None:
    second = HttpServer(house.app.asgi, streams=house.app.streams, port=house.server.port)
    with pytest.raises(ServerFailed, match=str(house.server.port)):
        await second.start()


async def test_it_starts_again_on_the_same_port(house: House) -> None:
    port = house.server.port
    await house.server.stop()
    house.server = HttpServer(house.app.asgi, streams=house.app.streams, port=port)
    await house.server.start()
    assert house.server.port == port
    assert (await house.client.get("/healthz")).status_code == 200


async def test_no_thread_of_the_server_outlives_it(house: House) -> None:
    async with house.client.stream("GET", "/api/v1/events/stream") as response:
        assert response.status_code == 200
        assert house.server.threads_alive
        await house.server.stop()
    assert not house.server.threads_alive


async def test_stopping_what_never_started_does_nothing(house: House) -> None:
    await HttpServer(house.app.asgi, streams=house.app.streams).stop()

"""Live events: in order, without gap or repeat, each tenant its own, at nobody else's cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from events import EntityId, EventLog, connect
from events.catalogue.models import ModelRegistered
from handlers.http.streams import Streams
from tests.http.conftest import House
from tests.http.test_problems import checked

STREAM = "/api/v1/events/stream"


@asynccontextmanager
async def listening(
    house: House, path: str = STREAM, **headers: str
) -> AsyncIterator[AsyncIterator[tuple[int, str]]]:
    async with house.client.stream("GET", path, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"] == "text/event-stream"
        yield _events(response)


async def _events(response: httpx.Response) -> AsyncIterator[tuple[int, str]]:
    position = 0
    async for line in response.aiter_lines():
        if line.startswith("id: "):
            position = int(line[4:])
        elif line.startswith("data: "):
            event = json.loads(line[6:])
            assert event["position"] == position
            yield position, event["subject"]


async def write(log: EventLog, tenant: str, name: str) -> int:
    return await log.append(
        EntityId(tenant, "model", name), [ModelRegistered(name=name)], expected=0
    )


async def test_a_listener_gets_what_was_and_what_comes(house: House) -> None:
    await write(house.log, "acme", "a")
    async with listening(house) as events:
        assert await anext(events) == (1, "model/a")
        await write(house.log, "acme", "b")
        assert await anext(events) == (2, "model/b")


@pytest.mark.parametrize("resume", ["header", "query"])
async def test_a_listener_that_comes_back_goes_on_where_it_was(house: House, resume: str) -> None:
    for name in ("a", "b", "c"):
        await write(house.log, "acme", name)
    async with listening(house) as events:
        last, _ = await anext(events)
    path = f"{STREAM}?after={last}" if resume == "query" else f"{STREAM}?after=0"
    headers = {"Last-Event-ID": str(last)} if resume == "header" else {}
    async with listening(house, path, **headers) as events:
        assert [await anext(events), await anext(events)] == [(2, "model/b"), (3, "model/c")]


async def test_a_tenant_hears_its_own_events_alone(house: House) -> None:
    await write(house.log, "globex", "theirs")
    await write(house.log, "acme", "ours")
    await write(house.log, "globex", "later")
    await write(house.log, "acme", "last")
    async with listening(house) as events:
        assert [await anext(events), await anext(events)] == [(2, "model/ours"), (4, "model/last")]


async def test_a_listener_can_follow_one_entity(house: House) -> None:
    for name in ("a", "b"):
        await write(house.log, "acme", name)
    async with listening(house, f"{STREAM}?entity=model/b") as events:
        assert await anext(events) == (2, "model/b")


@pytest.mark.parametrize(
    "entity", ["model", "model/", "/a", "model/*", "*/a", "traffic/a", "a/b/c"]
)
@pytest.mark.parametrize("path", ["/events", "/events/stream"])
async def test_an_entity_cannot_widen_what_is_heard(shared: House, path: str, entity: str) -> None:
    checked(await shared.client.get(f"/api/v1{path}", params={"entity": entity}), "invalid")


async def test_a_last_event_id_that_is_none_is_refused(house: House) -> None:
    for value in ("x", "-1", "9" * 40):
        response = await house.client.get(STREAM, headers={"Last-Event-ID": value})
        checked(response, "invalid")


async def test_a_quiet_stream_still_beats(house: House) -> None:
    async with house.client.stream("GET", STREAM) as response:
        beats = 0
        async for line in response.aiter_lines():
            beats += line.startswith(":")
            if beats == 3:
                break
    assert beats == 3


async def test_a_listener_that_leaves_is_forgotten(house: House) -> None:
    async with listening(house):
        assert house.app.streams.open == 1
    await house.app.streams.idle.wait()
    assert house.app.streams.open == 0


async def test_one_listener_too_many_is_told_to_come_back(house: House) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(8):
            await stack.enter_async_context(listening(house))
        response = await house.client.get(STREAM)
        checked(response, "overloaded")
        assert response.headers["retry-after"]


async def test_a_listener_that_does_not_read_is_cut_off() -> None:
    async with connect("memory:") as log:
        await write(log, "acme", "a")
        streams = Streams(log, heartbeat_seconds=60, stalled_seconds=0.05)
        sent: list[bytes] = []

        async def send(message: object) -> None:
            assert isinstance(message, dict)
            sent.append(message.get("body", b""))
            if len(sent) > 2:
                await asyncio.Event().wait()

        async def receive() -> object:
            return await asyncio.Event().wait()

        await streams.serve("evt.acme.>", 0, lambda: True, receive, send)  # type: ignore[arg-type]
        assert streams.open == 0
        assert sent[-1].startswith(b"id: 1\n")


async def test_stopping_the_server_ends_the_streams(house: House) -> None:
    async with listening(house) as events:
        await write(house.log, "acme", "a")
        await anext(events)
        stopping = asyncio.create_task(house.server.stop())
        assert [event async for event in events] == []
        await stopping

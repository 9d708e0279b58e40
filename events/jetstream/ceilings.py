"""What NATS does without us, for `switchback bench`: the same bytes, none of our code.

Each function makes a stream `BENCH` of its own where it needs one, and removes it. Not for any
other use: nothing is retried here, and an error of the server ends the measurement.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from uuid import uuid4

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy

from events.jetstream.serving import heard

_STREAM: Final = "BENCH"
_SUBJECT: Final = "bench.raw"
BATCH_MESSAGES: Final = 100
_SECONDS_MAX: Final = 120.0


class CeilingFailed(Exception):
    """The server refused."""


async def batched_publishes(url: str, messages: int, body: bytes) -> float:
    """Messages a second on disk, in atomic batches one after another."""
    batches = max(1, messages // BATCH_MESSAGES)
    async with asyncio.timeout(_SECONDS_MAX), _client(url) as client, _stream(client):
        began = time.perf_counter()
        for _ in range(batches):
            await _publish_batch(client, body)
        return batches * BATCH_MESSAGES / (time.perf_counter() - began)


async def ordered_subscription(url: str, stream: str, pattern: str, messages: int) -> float:
    """Messages a second through a client library's ordered consumer, from the first one on."""
    done = asyncio.get_running_loop().create_future()
    count = 0

    async def arrived(_: Msg) -> None:
        nonlocal count
        count += 1
        if count == messages:
            done.set_result(None)

    async with asyncio.timeout(_SECONDS_MAX), _client(url) as client:
        began = time.perf_counter()
        subscription = await client.jetstream().subscribe(
            pattern,
            stream=stream,
            ordered_consumer=True,
            deliver_policy=DeliverPolicy.ALL,
            cb=arrived,
            pending_msgs_limit=-1,
            pending_bytes_limit=-1,
        )
        await done
        took_s = time.perf_counter() - began
        await subscription.unsubscribe()
        return messages / took_s


async def requests_and_replies(url: str, requests: int, body: bytes) -> list[float]:
    """Seconds of each request to a subscriber on another connection that sends it back."""
    subject = f"bench.echo.{uuid4().hex}"
    async with asyncio.timeout(_SECONDS_MAX), _client(url) as asking, _client(url) as answering:

        async def reply(message: Msg) -> None:
            await answering.publish(message.reply, message.data)

        await answering.subscribe(subject, cb=reply)
        await heard(answering)
        taken_s: list[float] = []
        for _ in range(requests):
            began = time.perf_counter()
            await asking.request(subject, body, timeout=5)
            taken_s.append(time.perf_counter() - began)
        return taken_s


async def publishes_delivered(
    url: str,
    publishes: int,
    body: bytes,
    *,
    subscribers: int,
    rate_per_s: float,
    deliver: Callable[[bytes], Awaitable[object]],
) -> list[float]:
    """Seconds from each publish until every subscriber, each on a connection of its own, has
    delivered it."""
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(asyncio.timeout(_SECONDS_MAX))
        client = await stack.enter_async_context(_client(url))
        await stack.enter_async_context(_stream(client))
        watch = _Deliveries(subscribers, deliver)
        for _ in range(subscribers):
            follower = await stack.enter_async_context(_client(url))
            await follower.jetstream().subscribe(
                _SUBJECT, stream=_STREAM, ordered_consumer=True, cb=watch.arrived
            )
        began = time.perf_counter()
        for number in range(publishes):
            await asyncio.sleep(began + number / rate_per_s - time.perf_counter())
            watch.sent(number)
            await client.request(_SUBJECT, number.to_bytes(8, "big") + body, timeout=5)
        return await watch.all()


class _Deliveries:
    """When each message was sent, and when the last subscriber had it."""

    def __init__(self, subscribers: int, deliver: Callable[[bytes], Awaitable[object]]) -> None:
        self._subscribers = subscribers
        self._deliver = deliver
        self._sent: list[float] = []
        self._missing: list[int] = []
        self._taken_s: list[asyncio.Future[float]] = []

    def sent(self, number: int) -> None:
        assert number == len(self._sent), "messages are numbered from 0"
        self._sent.append(time.perf_counter())
        self._missing.append(self._subscribers)
        self._taken_s.append(asyncio.get_running_loop().create_future())

    async def arrived(self, message: Msg) -> None:
        number = int.from_bytes(message.data[:8], "big")
        await self._deliver(message.data)
        self._missing[number] -= 1
        if not self._missing[number]:
            self._taken_s[number].set_result(time.perf_counter() - self._sent[number])

    async def all(self) -> list[float]:
        return list(await asyncio.gather(*self._taken_s))


async def _publish_batch(client: Client, body: bytes) -> None:
    headers = {"Nats-Batch-Id": uuid4().hex}
    for sequence in range(1, BATCH_MESSAGES + 1):
        headers["Nats-Batch-Sequence"] = str(sequence)
        if sequence == 1:
            await client.request(_SUBJECT, body, timeout=5, headers=headers)
        elif sequence < BATCH_MESSAGES:
            await client.publish(_SUBJECT, body, headers=headers)
    headers["Nats-Batch-Commit"] = "1"
    _check(await client.request(_SUBJECT, body, timeout=5, headers=headers))


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[Client]:
    client = await nats.connect(url)
    try:
        yield client
    finally:
        await client.close()


@asynccontextmanager
async def _stream(client: Client) -> AsyncIterator[None]:
    config = {
        "name": _STREAM,
        "subjects": [_SUBJECT],
        "storage": "file",
        "num_replicas": 1,
        "allow_atomic": True,
    }
    await _call(client, f"STREAM.CREATE.{_STREAM}", msgspec.json.encode(config))
    try:
        yield
    finally:
        await _call(client, f"STREAM.DELETE.{_STREAM}", b"")


async def _call(client: Client, call: str, body: bytes) -> None:
    _check(await client.request(f"$JS.API.{call}", body, timeout=10))


def _check(reply: Msg) -> None:
    error = msgspec.json.decode(reply.data).get("error")
    if error is not None:
        raise CeilingFailed(str(error))

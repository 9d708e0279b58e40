"""A subscription has no gap and no repeat, whatever happens to servers and connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import pytest_asyncio

from events import EntityId, LogUnavailable, MalformedEvent, Position
from events.codec import encode
from events.event import Metadata
from events.jetstream import JetStream
from events.jetstream.consumer import Delivery, OrderedConsumer
from switchback.embedded import NatsServer
from tests.events.examples import FRAUD, SPAM, first, history, moved, until


async def fill(jetstream: JetStream, count: int, *, start: int = 0) -> None:
    await asyncio.gather(
        *(
            jetstream.events.append(EntityId("acme", "model", f"m{n}"), [moved("1")], expected=0)
            for n in range(start, start + count)
        )
    )


@pytest_asyncio.fixture
async def own_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["evt.>", "evt.acme.model.>"])
async def test_a_subscription_outlives_the_server(own_server: NatsServer, pattern: str) -> None:
    async with JetStream.connect(own_server.url) as jetstream:
        positions: list[Position] = []

        async def subscriber() -> None:
            async with aclosing(jetstream.events.subscribe(pattern)) as events:
                async for recorded in events:
                    positions.append(recorded.position)  # noqa: PERF401 - it is watched

        task = asyncio.create_task(subscriber())
        for round_ in range(3):
            await fill(jetstream, 300, start=300 * round_)
            own_server.kill()
            await own_server.start()
        await fill(jetstream, 10, start=900)
        await until(lambda: len(positions) >= 910 or task.done())
        task.cancel()
        assert positions == list(range(1, 911))


async def test_a_lost_consumer_is_replaced(jetstream: JetStream) -> None:
    await fill(jetstream, 10)
    async with aclosing(jetstream.events.subscribe()) as events:
        positions = [(await anext(events)).position for _ in range(10)]
        info = await jetstream.calls.insist_on("CONSUMER.NAMES.EVENTS")
        for name in info["consumers"]:
            await jetstream.calls.insist_on(f"CONSUMER.DELETE.EVENTS.{name}")
        await fill(jetstream, 10, start=10)
        positions += [(await anext(events)).position for _ in range(10)]
    assert positions == list(range(1, 21))


async def test_a_delivery_that_went_missing_is_fetched_again(
    jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(jetstream, 100)
    take = OrderedConsumer.take
    consumers: list[OrderedConsumer] = []

    async def lossy(self: OrderedConsumer, at_most: int) -> list[Delivery]:
        batch = await take(self, at_most)
        if self not in consumers:
            consumers.append(self)
        return [d for d in batch if len(consumers) > 1 or d.position != 42]

    monkeypatch.setattr(OrderedConsumer, "take", lossy)
    assert [r.position for r in await first(jetstream.events, 100)] == list(range(1, 101))
    assert len(consumers) == 2


async def test_a_position_that_is_not_on_the_stream_is_an_error_after_all_before_it(
    jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fill(jetstream, 10)
    take = OrderedConsumer.take

    async def lossy(self: OrderedConsumer, at_most: int) -> list[Delivery]:
        batch = await take(self, at_most)
        return [d for d in batch if d.position not in (5, 6)]

    monkeypatch.setattr(OrderedConsumer, "take", lossy)
    positions: list[Position] = []
    with pytest.raises(MalformedEvent, match="5 to 6") as gap:
        async for recorded in jetstream.events.subscribe():
            positions.append(recorded.position)  # noqa: PERF401 - it ends in an error
    assert positions == [1, 2, 3, 4]
    assert [r.position for r in await first(jetstream.events, 4, after=gap.value.position)] == [
        7,
        8,
        9,
        10,
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"not json", "malformed"),
        (b'{"hello": "world"}', "missing"),
        (b"", "truncated"),
        (encode(SPAM, moved("1"), Metadata(), 0), "stands on"),
    ],
    ids=["not JSON", "foreign JSON", "empty", "of another entity"],
)
async def test_a_malformed_message_comes_after_the_good_ones_and_can_be_passed(
    jetstream: JetStream, body: bytes, reason: str
) -> None:
    log = jetstream.events
    await log.append(FRAUD, [moved("1"), moved("2")], expected=0)
    await jetstream.calls.request(FRAUD.subject, body)
    await log.append(FRAUD, [moved("3")], expected=3)
    positions: list[Position] = []
    with pytest.raises(MalformedEvent, match=reason) as malformed:
        async for recorded in log.subscribe():
            positions.append(recorded.position)  # noqa: PERF401 - it ends in an error
    assert positions == [1, 2]
    assert (malformed.value.position, malformed.value.subject) == (3, FRAUD.subject)
    assert [r.position for r in await first(log, 1, after=3)] == [4]
    with pytest.raises(MalformedEvent):
        await history(log, FRAUD)


async def test_a_pattern_outside_the_stream_is_refused(jetstream: JetStream) -> None:
    for pattern in ("obs.>", ">", "*.acme.>", "evt", "evt.", "evt..x", "evt.> x"):
        with pytest.raises(ValueError, match=r"EVENTS|pattern"):
            await first(jetstream.events, 1, pattern)


async def test_a_subscription_ends_with_the_connection(nats_url: str) -> None:
    async with JetStream.connect(nats_url) as jetstream:
        waiting = asyncio.ensure_future(first(jetstream.events, 1))
        await asyncio.sleep(0)
    with pytest.raises(LogUnavailable):
        await waiting


async def test_a_subscriber_that_leaves_takes_its_consumer_along(jetstream: JetStream) -> None:
    await fill(jetstream, 10)
    await first(jetstream.events, 5)
    while (await jetstream.calls.ask("CONSUMER.NAMES.EVENTS"))["consumers"]:  # noqa: ASYNC110
        await asyncio.sleep(0.001)


async def test_more_is_on_the_log_than_one_pull_brings(jetstream: JetStream) -> None:
    events = [moved(str(n)) for n in range(1_000)]
    for n in range(6):
        await jetstream.events.append(FRAUD, events, expected=1_000 * n)
    assert [r.position for r in await first(jetstream.events, 6_000)] == list(range(1, 6_001))
    assert len(await history(jetstream.events, FRAUD)) == 6_000

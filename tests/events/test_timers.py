"""Timers fire once they are due, whatever happened in between."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from events import InvalidIdentifier, LogUnavailable
from events.jetstream import JetStream
from events.timers import Wake
from switchback.embedded import NatsServer


def soon(seconds: float) -> datetime:
    return datetime.now(UTC) + timedelta(seconds=seconds)


async def wakes(jetstream: JetStream, kind: str, count: int) -> list[tuple[str, bytes]]:
    """The first wake-ups of a kind, done."""
    taken: list[tuple[str, bytes]] = []
    async with aclosing(jetstream.timers.wakes(kind)) as due:  # type: ignore[type-var]
        async for wake in due:
            await wake.done()
            taken.append((wake.timer, wake.payload))
            if len(taken) == count:
                break
    return taken


async def next_wake(jetstream: JetStream, kind: str) -> Wake:
    async with aclosing(jetstream.timers.wakes(kind)) as due:  # type: ignore[type-var]
        return await anext(due)


async def test_a_timer_fires_and_not_before_it_is_due(jetstream: JetStream) -> None:
    due = soon(0.35)
    await jetstream.timers.set("hold.acme.chat", due=due, payload=b"step 2")
    assert await wakes(jetstream, "hold", 1) == [("hold.acme.chat", b"step 2")]
    assert datetime.now(UTC) >= due


async def test_timers_fire_in_the_order_they_are_due(jetstream: JetStream) -> None:
    for name, seconds in (("c", 0.6), ("a", 0.2), ("b", 0.4)):
        await jetstream.timers.set(f"hold.acme.{name}", due=soon(seconds), payload=b"")
    assert [name for name, _ in await wakes(jetstream, "hold", 3)] == [
        "hold.acme.a",
        "hold.acme.b",
        "hold.acme.c",
    ]


async def test_the_past_fires_at_once(jetstream: JetStream) -> None:
    await jetstream.timers.set("hold.acme.late", due=soon(-3600), payload=b"late")
    assert await wakes(jetstream, "hold", 1) == [("hold.acme.late", b"late")]


async def test_a_due_time_counts_in_its_own_time_zone(jetstream: JetStream) -> None:
    due = soon(-60).astimezone(timezone(timedelta(hours=9)))
    await jetstream.timers.set("hold.acme.tokyo", due=due, payload=b"")
    assert await wakes(jetstream, "hold", 1) == [("hold.acme.tokyo", b"")]


async def test_setting_a_timer_again_replaces_it(jetstream: JetStream) -> None:
    await jetstream.timers.set("hold.acme.chat", due=soon(0.3), payload=b"old")
    await jetstream.timers.set("hold.acme.chat", due=soon(0.5), payload=b"new")
    await jetstream.timers.set("hold.acme.last", due=soon(0.7), payload=b"")
    assert await wakes(jetstream, "hold", 2) == [
        ("hold.acme.chat", b"new"),
        ("hold.acme.last", b""),
    ]


async def test_a_cancelled_timer_does_not_fire(jetstream: JetStream) -> None:
    await jetstream.timers.set("hold.acme.chat", due=soon(0.3), payload=b"")
    await jetstream.timers.set("hold.acme.last", due=soon(0.5), payload=b"")
    await jetstream.timers.cancel("hold.acme.chat")
    assert await wakes(jetstream, "hold", 1) == [("hold.acme.last", b"")]


async def test_cancelling_nothing_is_silent(jetstream: JetStream) -> None:
    await jetstream.timers.cancel("hold.acme.never")


async def test_a_cancelled_timer_can_be_set_again(jetstream: JetStream) -> None:
    await jetstream.timers.set("hold.acme.chat", due=soon(60), payload=b"1")
    await jetstream.timers.cancel("hold.acme.chat")
    await jetstream.timers.set("hold.acme.chat", due=soon(0.1), payload=b"2")
    assert await wakes(jetstream, "hold", 1) == [("hold.acme.chat", b"2")]


async def test_a_wake_that_is_not_done_comes_again(jetstream: JetStream) -> None:
    await jetstream.timers.set("hold.acme.chat", due=soon(0), payload=b"x")
    await next_wake(jetstream, "hold")
    again = await next_wake(jetstream, "hold")
    assert (again.timer, again.payload) == ("hold.acme.chat", b"x")
    await again.done()


async def test_a_wake_that_is_done_does_not_come_again(jetstream: JetStream) -> None:
    await jetstream.timers.set("hold.acme.chat", due=soon(0), payload=b"x")
    await (await next_wake(jetstream, "hold")).done()
    info = await jetstream.calls.insist_on("STREAM.INFO.TIMERS")
    assert info["state"]["messages"] == 0


async def test_kinds_do_not_mix(jetstream: JetStream) -> None:
    await jetstream.timers.set("hold.acme.chat", due=soon(0), payload=b"hold")
    await jetstream.timers.set("schedule.acme.chat", due=soon(0), payload=b"schedule")
    assert await wakes(jetstream, "schedule", 1) == [("schedule.acme.chat", b"schedule")]
    assert await wakes(jetstream, "hold", 1) == [("hold.acme.chat", b"hold")]


async def test_each_wake_goes_to_one_of_those_who_ask(jetstream: JetStream) -> None:
    for n in range(20):
        await jetstream.timers.set(f"hold.acme.t{n}", due=soon(0), payload=b"")
    taken: list[str] = []

    async def asker() -> None:
        async for wake in jetstream.timers.wakes("hold"):
            taken.append(wake.timer)
            await wake.done()
            if len(taken) == 20:
                finished.set()

    finished = asyncio.Event()
    askers = [asyncio.create_task(asker()) for _ in range(3)]
    await finished.wait()
    for task in askers:
        task.cancel()
    assert sorted(taken) == sorted(f"hold.acme.t{n}" for n in range(20))


@pytest.mark.slow
async def test_a_timer_survives_kill_9_and_fires_late_rather_than_never(tmp_path: Path) -> None:
    async with (
        NatsServer(tmp_path / "nats") as server,
        JetStream.connect(server.url) as jetstream,
    ):
        await jetstream.timers.set("hold.acme.soon", due=soon(0.2), payload=b"1")
        await jetstream.timers.set("hold.acme.later", due=soon(2.5), payload=b"2")
        listening = asyncio.create_task(wakes(jetstream, "hold", 2))
        server.kill()
        await server.start()
        assert await listening == [("hold.acme.soon", b"1"), ("hold.acme.later", b"2")]


@pytest.mark.parametrize(
    "name",
    ["hold", "hold.>", "hold.*", "hold..x", "", "hold.a b", "hold.x\r\n", "hold." + "x" * 65],
)
async def test_a_hostile_name_is_refused(jetstream: JetStream, name: str) -> None:
    for attempt in (
        jetstream.timers.set(name, due=soon(0), payload=b""),
        jetstream.timers.cancel(name),
    ):
        with pytest.raises((InvalidIdentifier, ValueError)):
            await attempt


async def test_a_due_time_without_time_zone_is_refused(jetstream: JetStream) -> None:
    naive = datetime.now(UTC).replace(tzinfo=None)
    with pytest.raises(ValueError, match="time zone"):
        await jetstream.timers.set("hold.acme.chat", due=naive, payload=b"")


async def test_waiting_for_wakes_ends_with_the_connection(nats_url: str) -> None:
    async with JetStream.connect(nats_url) as jetstream:
        waiting = asyncio.create_task(wakes(jetstream, "hold", 1))
        await asyncio.sleep(0)
    with pytest.raises(LogUnavailable):
        await waiting

"""Request and reply between processes: typed failures, streams without holes, clean ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio
import uvloop
from nats.aio.msg import Msg

from events import LogUnavailable
from events.errors import (
    NoResponders,
    ReaderTooSlow,
    RemoteFailure,
    RequestTimeout,
    ServerDied,
)
from events.jetstream import JetStream, asking, serving
from events.jetstream import bus as bus_module
from events.jetstream.channel import Channel
from switchback.embedded import NatsServer
from tests.events.examples import until


@pytest_asyncio.fixture
async def remote(nats_url: str, jetstream: JetStream) -> AsyncIterator[JetStream]:
    """A second process, as far as the server can tell."""
    async with JetStream.connect(nats_url, lease_ttl_s=jetstream.leases.ttl_s) as remote:
        yield remote


async def echo(subject: str, payload: bytes) -> bytes:
    return subject.encode() + b" " + payload


async def forever(subject: str, payload: bytes) -> bytes:
    await asyncio.Event().wait()
    return b""


async def count_to(subject: str, payload: bytes) -> AsyncIterator[bytes]:
    for n in range(int(payload)):
        yield str(n).encode()


def streaming(
    jetstream: JetStream, subject: str, payload: bytes, *, timeout_s: float = 5.0
) -> AsyncGenerator[bytes, None]:
    replies = jetstream.bus.stream(subject, payload, timeout_s=timeout_s)
    assert isinstance(replies, AsyncGenerator)
    return replies


async def test_a_request_gets_its_reply(jetstream: JetStream, remote: JetStream) -> None:
    await remote.bus.serve("inf.acme.*", echo, queue="nodes")
    reply = await jetstream.bus.request("inf.acme.fraud", b"hello", timeout_s=5)
    assert reply == b"inf.acme.fraud hello"


async def test_replies_find_their_own_requests(jetstream: JetStream, remote: JetStream) -> None:
    await remote.bus.serve("inf.acme.*", echo, queue="nodes")
    replies = await asyncio.gather(
        *(jetstream.bus.request("inf.acme.x", str(n).encode(), timeout_s=5) for n in range(500))
    )
    assert replies == [f"inf.acme.x {n}".encode() for n in range(500)]


async def test_an_empty_reply_is_a_reply(jetstream: JetStream) -> None:
    async def nothing(subject: str, payload: bytes) -> bytes:
        return b""

    await jetstream.bus.serve("inf.acme.x", nothing, queue="nodes")
    assert await jetstream.bus.request("inf.acme.x", b"", timeout_s=5) == b""


async def test_nobody_there_is_known_at_once(jetstream: JetStream) -> None:
    with pytest.raises(NoResponders) as alone:
        await jetstream.bus.request("inf.acme.nobody", b"", timeout_s=60)
    assert alone.value.subject == "inf.acme.nobody"
    with pytest.raises(NoResponders):
        await anext(streaming(jetstream, "inf.acme.nobody", b"", timeout_s=60))


async def test_no_reply_in_time(jetstream: JetStream) -> None:
    await jetstream.bus.serve("inf.acme.slow", forever, queue="nodes")
    with pytest.raises(RequestTimeout) as late:
        await jetstream.bus.request("inf.acme.slow", b"", timeout_s=0.05)
    assert (late.value.subject, late.value.timeout_s) == ("inf.acme.slow", 0.05)


async def test_a_failure_arrives_with_its_code_and_detail(jetstream: JetStream) -> None:
    async def fail(subject: str, payload: bytes) -> bytes:
        raise RemoteFailure(subject, "runtime_failed", "line one\r\nline two: ütf ✓")

    await jetstream.bus.serve("inf.acme.bad", fail, queue="nodes")
    with pytest.raises(RemoteFailure) as failed:
        await jetstream.bus.request("inf.acme.bad", b"", timeout_s=5)
    assert failed.value.code == "runtime_failed"
    assert "line one" in failed.value.detail
    assert "ütf ✓" in failed.value.detail


async def test_a_failure_nobody_foresaw_tells_its_type_alone(jetstream: JetStream) -> None:
    async def fail(subject: str, payload: bytes) -> bytes:
        raise KeyError("secret")

    await jetstream.bus.serve("inf.acme.bug", fail, queue="nodes")
    with pytest.raises(RemoteFailure) as failed:
        await jetstream.bus.request("inf.acme.bug", b"", timeout_s=5)
    assert (failed.value.code, failed.value.detail) == ("internal", "KeyError")


async def test_each_request_reaches_one_of_a_queue_group(
    jetstream: JetStream, remote: JetStream
) -> None:
    taken: list[str] = []

    def named(name: str) -> bus_module.Handler:
        async def handler(subject: str, payload: bytes) -> bytes:
            taken.append(name)
            return b""

        return handler

    await jetstream.bus.serve("inf.acme.x", named("a"), queue="nodes")
    await remote.bus.serve("inf.acme.x", named("b"), queue="nodes")
    for _ in range(60):
        await jetstream.bus.request("inf.acme.x", b"", timeout_s=5)
    assert len(taken) == 60
    assert set(taken) == {"a", "b"}


async def test_requests_are_handled_at_the_same_time(jetstream: JetStream) -> None:
    together = asyncio.Barrier(10)

    async def meet(subject: str, payload: bytes) -> bytes:
        await together.wait()
        return b"met"

    await jetstream.bus.serve("inf.acme.x", meet, queue="nodes")
    replies = await asyncio.gather(
        *(jetstream.bus.request("inf.acme.x", b"", timeout_s=5) for _ in range(10))
    )
    assert replies == [b"met"] * 10


async def test_one_request_too_many_is_answered_overloaded(
    jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "REQUESTS_MAX", 2)
    release = asyncio.Event()
    started: list[bytes] = []

    async def hold(subject: str, payload: bytes) -> bytes:
        started.append(payload)
        await release.wait()
        return b"done"

    await jetstream.bus.serve("inf.acme.x", hold, queue="nodes")
    held = [
        asyncio.ensure_future(jetstream.bus.request("inf.acme.x", b"", timeout_s=5))
        for _ in range(2)
    ]
    await until(lambda: len(started) == 2)
    with pytest.raises(RemoteFailure) as refused:
        await jetstream.bus.request("inf.acme.x", b"", timeout_s=5)
    assert refused.value.code == "overloaded"
    release.set()
    assert await asyncio.gather(*held) == [b"done", b"done"]
    assert await jetstream.bus.request("inf.acme.x", b"", timeout_s=5) == b"done"


async def test_a_stopped_service_answers_what_it_has_and_takes_no_more(
    jetstream: JetStream, remote: JetStream
) -> None:
    release = asyncio.Event()
    started = asyncio.Event()

    async def hold(subject: str, payload: bytes) -> bytes:
        started.set()
        await release.wait()
        return b"done"

    service = await remote.bus.serve("inf.acme.x", hold, queue="nodes")
    held = asyncio.ensure_future(jetstream.bus.request("inf.acme.x", b"", timeout_s=5))
    await started.wait()
    stopping = asyncio.ensure_future(service.stop())
    while True:
        try:
            await jetstream.bus.request("inf.acme.x", b"", timeout_s=0.05)
        except NoResponders:
            break
        except RequestTimeout:
            continue
    assert not stopping.done()
    release.set()
    await stopping
    assert await held == b"done"


async def test_a_stream_brings_every_reply_in_order(
    jetstream: JetStream, remote: JetStream
) -> None:
    await remote.bus.serve_stream("tok.acme.x", count_to, queue="nodes")
    replies = [r async for r in jetstream.bus.stream("tok.acme.x", b"3000", timeout_s=5)]
    assert replies == [str(n).encode() for n in range(3000)]


async def test_a_stream_may_be_empty(jetstream: JetStream) -> None:
    await jetstream.bus.serve_stream("tok.acme.x", count_to, queue="nodes")
    assert [r async for r in jetstream.bus.stream("tok.acme.x", b"0", timeout_s=5)] == []


async def test_replies_arrive_while_the_stream_goes_on(jetstream: JetStream) -> None:
    go_on = asyncio.Event()

    async def handler(subject: str, payload: bytes) -> AsyncIterator[bytes]:
        yield b"first"
        await go_on.wait()
        yield b"second"

    await jetstream.bus.serve_stream("tok.acme.x", handler, queue="nodes")
    async with aclosing(streaming(jetstream, "tok.acme.x", b"")) as replies:
        assert await anext(replies) == b"first"
        go_on.set()
        assert await anext(replies) == b"second"
        with pytest.raises(StopAsyncIteration):
            await anext(replies)


async def test_a_stream_that_fails_brings_what_came_before(jetstream: JetStream) -> None:
    async def handler(subject: str, payload: bytes) -> AsyncIterator[bytes]:
        yield b"first"
        raise RemoteFailure(subject, "runtime_failed", "out of memory")

    await jetstream.bus.serve_stream("tok.acme.x", handler, queue="nodes")
    replies = streaming(jetstream, "tok.acme.x", b"")
    assert await anext(replies) == b"first"
    with pytest.raises(RemoteFailure, match="out of memory"):
        await anext(replies)


async def test_a_stream_that_falls_silent_times_out(jetstream: JetStream) -> None:
    cancelled = asyncio.Event()

    async def handler(subject: str, payload: bytes) -> AsyncIterator[bytes]:
        yield b"first"
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    await jetstream.bus.serve_stream("tok.acme.x", handler, queue="nodes")
    replies = streaming(jetstream, "tok.acme.x", b"", timeout_s=0.1)
    assert await anext(replies) == b"first"
    with pytest.raises(RequestTimeout):
        await anext(replies)
    await cancelled.wait()


@pytest.mark.parametrize("read", [0, 1])
async def test_a_client_that_stops_reading_cancels_the_handler(
    jetstream: JetStream, remote: JetStream, read: int
) -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def handler(subject: str, payload: bytes) -> AsyncIterator[bytes]:
        started.set()
        try:
            for _ in range(read):
                yield b"reply"
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    service = await remote.bus.serve_stream("tok.acme.x", handler, queue="nodes")
    replies = streaming(jetstream, "tok.acme.x", b"")
    for _ in range(read):
        await anext(replies)
    waiting = asyncio.ensure_future(anext(replies))
    await started.wait()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await replies.aclose()
    await cancelled.wait()
    await service.stop()


async def test_a_lost_reply_is_an_error_and_not_a_hole(nats_url: str, jetstream: JetStream) -> None:
    client = await nats.connect(nats_url)

    async def careless(message: nats.aio.msg.Msg) -> None:
        inbox = message.reply.removesuffix(".0")
        for n in (0, 2):
            await client.publish(f"{inbox}.{n}", b"reply")

    await client.subscribe("tok.acme.x", cb=careless)
    await client.flush()
    replies = streaming(jetstream, "tok.acme.x", b"")
    assert await anext(replies) == b"reply"
    with pytest.raises(LogUnavailable, match="reply 1 was lost"):
        await anext(replies)
    await client.close()


async def test_a_reader_that_is_too_slow_is_cut_off(
    jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus_module, "STREAM_BUFFER_MAX", 50)
    sent = asyncio.Event()

    async def handler(subject: str, payload: bytes) -> AsyncIterator[bytes]:
        for n in range(1_000):
            yield str(n).encode()
        sent.set()

    await jetstream.bus.serve_stream("tok.acme.x", handler, queue="nodes")
    replies = streaming(jetstream, "tok.acme.x", b"")
    assert await anext(replies) == b"0"
    await sent.wait()
    await jetstream.bus.publish("flush", b"")
    with pytest.raises(ReaderTooSlow):
        async for _ in replies:
            await asyncio.sleep(0)


async def test_everybody_hears_what_is_published(jetstream: JetStream, remote: JetStream) -> None:
    heard: list[tuple[str, str, bytes]] = []
    ears = [
        await side.bus.listen(
            "gw.applied.*", lambda subject, payload, n=name: heard.append((n, subject, payload))
        )
        for name, side in (("a", jetstream), ("b", remote))
    ]
    await jetstream.bus.publish("gw.applied.g1", b"42")
    await until(lambda: len(heard) == 2)
    assert sorted(heard) == [("a", "gw.applied.g1", b"42"), ("b", "gw.applied.g1", b"42")]
    await ears[0].stop()
    await jetstream.bus.publish("gw.applied.g1", b"43")
    await until(lambda: len(heard) == 3)
    assert heard[2][0] == "b"


async def test_a_listener_survives_its_own_errors(jetstream: JetStream) -> None:
    heard: list[bytes] = []

    def handler(subject: str, payload: bytes) -> None:
        if payload == b"bad":
            raise ValueError(payload)
        heard.append(payload)

    await jetstream.bus.listen("gw.applied.*", handler)
    for payload in (b"bad", b"good"):
        await jetstream.bus.publish("gw.applied.g1", payload)
    await until(lambda: heard == [b"good"])


@pytest.mark.slow
async def test_services_come_back_with_the_server(tmp_path: Path) -> None:
    async with (
        NatsServer(tmp_path / "nats") as server,
        JetStream.connect(server.url) as jetstream,
    ):
        await jetstream.bus.serve("inf.acme.x", echo, queue="nodes")
        server.kill()
        await until(lambda: not jetstream.connected)
        with pytest.raises(LogUnavailable):
            await jetstream.bus.request("inf.acme.x", b"", timeout_s=5)
        await server.start()
        await until(lambda: jetstream.connected)
        assert await jetstream.bus.request("inf.acme.x", b"1", timeout_s=5) == b"inf.acme.x 1"


async def test_a_connection_lost_during_a_stream_is_an_error(tmp_path: Path) -> None:
    async def handler(subject: str, payload: bytes) -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    async with (
        NatsServer(tmp_path / "nats") as server,
        JetStream.connect(server.url) as jetstream,
    ):
        await jetstream.bus.serve_stream("tok.acme.x", handler, queue="nodes")
        replies = streaming(jetstream, "tok.acme.x", b"")
        assert await anext(replies) == b"first"
        server.kill()
        await server.start()
        with pytest.raises(LogUnavailable):
            await anext(replies)


async def test_a_service_that_stops_gives_up_on_handlers_that_do_not_end(
    jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "STOP_SECONDS", 0.05)
    service = await jetstream.bus.serve("inf.acme.slow", forever, queue="nodes")
    waiting = asyncio.ensure_future(jetstream.bus.request("inf.acme.slow", b"", timeout_s=60))
    await asyncio.sleep(0)
    await service.stop()
    with pytest.raises(RemoteFailure, match="has stopped") as told:
        await waiting
    assert told.value.code == "unavailable"


async def test_a_server_that_dies_is_known_by_its_silence(
    nats_url: str, jetstream: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This one has never been alive: it takes requests, and says nothing."""
    monkeypatch.setattr(asking, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(bus_module, "SILENT_SECONDS", 0.05)
    client = await nats.connect(nats_url)
    await client.subscribe("inf.acme.dead")
    await serving.heard(client)
    with pytest.raises(ServerDied):
        await jetstream.bus.request("inf.acme.dead", b"", timeout_s=3_600)
    with pytest.raises(ServerDied):
        await anext(streaming(jetstream, "inf.acme.dead", b"", timeout_s=3_600))
    await client.close()


@pytest.mark.slow
async def test_a_server_that_lives_may_take_its_time(
    jetstream: JetStream, remote: JetStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = [0, 0]
    take, wait = Channel.take, asyncio.wait

    async def noted_take(channel: Channel, at_most: int, *, timeout_s: float) -> list[Msg]:
        taken = await take(channel, at_most, timeout_s=timeout_s)
        looks[0] += any(message.subject.endswith(serving.ALIVE) for message in taken)
        return taken

    async def noted_wait(*args: Any, **kwargs: Any) -> Any:
        looks[1] += 1
        return await wait(*args, **kwargs)

    monkeypatch.setattr(Channel, "take", noted_take)
    monkeypatch.setattr(asking.asyncio, "wait", noted_wait)
    monkeypatch.setattr(serving, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(asking, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(bus_module, "SILENT_SECONDS", 0.5)
    go_on = asyncio.Event()

    async def hold(subject: str, payload: bytes) -> bytes:
        await go_on.wait()
        return b"done"

    async def hold_stream(subject: str, payload: bytes) -> AsyncIterator[bytes]:
        yield await hold(subject, payload)

    await remote.bus.serve("inf.acme.x", hold, queue="nodes")
    await remote.bus.serve_stream("tok.acme.x", hold_stream, queue="nodes")
    whole = asyncio.ensure_future(jetstream.bus.request("inf.acme.x", b"", timeout_s=60))
    first = asyncio.ensure_future(anext(streaming(jetstream, "tok.acme.x", b"", timeout_s=60)))
    await until(lambda: looks[0] > 3 and looks[1] > 3)
    go_on.set()
    assert await whole == await first == b"done"


@pytest.mark.slow
async def test_nothing_is_known_of_a_server_while_we_are_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "SILENT_SECONDS", 0.5)
    started, go_on = asyncio.Event(), asyncio.Event()

    async def hold(subject: str, payload: bytes) -> bytes:
        started.set()
        await go_on.wait()
        return b"done"

    async with (
        NatsServer(tmp_path / "nats") as server,
        JetStream.connect(server.url) as jetstream,
    ):
        monkeypatch.setattr(serving, "BEAT_SECONDS", 0.01)
        await jetstream.bus.serve("inf.acme.x", hold, queue="nodes")
        asked = asyncio.ensure_future(jetstream.bus.request("inf.acme.x", b"", timeout_s=60))
        await started.wait()
        server.kill()
        await until(lambda: not jetstream.connected)
        assert not await asking.connected(jetstream._client)
        await server.start()
        await until(lambda: jetstream.connected)
        go_on.set()
        assert await asked == b"done"


async def closed_without_a_server(directory: Path) -> None:
    async with NatsServer(directory / "nats") as server:
        async with JetStream.connect(server.url) as jetstream:
            await jetstream.bus.serve("inf.acme.x", echo, queue="nodes")
            server.kill()
            await until(lambda: not jetstream.connected)
            await jetstream._client.publish("inf.acme.x", b"nobody will ever get this")
        assert not jetstream.connected


async def test_closing_without_a_server_ends(tmp_path: Path) -> None:
    await closed_without_a_server(tmp_path)


@pytest.mark.slow
async def test_closing_without_a_server_ends_on_uvloop_too(tmp_path: Path) -> None:
    """What processes run on; it fails otherwise."""
    await asyncio.to_thread(uvloop.run, closed_without_a_server(tmp_path))

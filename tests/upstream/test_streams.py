"""Streams of a real server that misbehaves, and of callers that leave."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from engine.runtimes.upstream import (
    BrokenOff,
    Call,
    Chunk,
    Closed,
    HalfAnswered,
    Malformed,
    Overloaded,
    Refused,
    TimedOut,
    TooLarge,
    Upstream,
    UpstreamFailed,
)
from tests.upstream.conftest import Open, chat
from tests.upstream.server import (
    CHUNKED,
    EVENTS_HEAD,
    HELLO,
    Behaviour,
    Exchange,
    MockUpstream,
    answers,
    chunk,
    cut,
    document,
    event,
    http_chunks,
    raw,
    stalls,
    stream_bytes,
    streams,
)

USAGE = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


def text_in(one: Chunk) -> str:
    deltas = [choice.delta for choice in one.choices if choice.delta is not None]
    return "".join(str(delta.content or "") for delta in deltas)


async def text_of(upstream: Upstream, call: Call | None = None) -> str:
    async with upstream.stream(call or chat()) as stream:
        return "".join([text_in(one) async for one in stream])


async def test_chunks_come_one_by_one(mock: MockUpstream, open_upstream: Open) -> None:
    """Each is in the caller's hands before the upstream has the next."""
    taken = asyncio.Queue[str]()

    async def in_step(exchange: Exchange) -> None:
        await exchange.send(EVENTS_HEAD + CHUNKED)
        for text in ("Hel", "lo"):
            await exchange.send(http_chunks(event(chunk(text))))
            assert await taken.get() == text
        await exchange.send(http_chunks(event(chunk(finish="stop")), event(b"[DONE]"), b""))

    mock.behaviours = [in_step]
    async with open_upstream().stream(chat()) as stream:
        async for one in stream:
            taken.put_nowait(text_in(one))
    assert stream.attempts == 1


async def test_usage_is_asked_for_and_comes(mock: MockUpstream, open_upstream: Open) -> None:
    mock.behaviours = [streams(chunk("Hi", finish="stop"), USAGE)]
    async with open_upstream().stream(chat()) as stream:
        usages = [one.usage async for one in stream]
    assert mock.requests[0].json["stream_options"] == {"include_usage": True}
    assert usages[0] is None
    assert usages[1] is not None
    assert usages[1].total_tokens == 3


async def test_usage_is_not_asked_of_an_upstream_that_cannot(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [streams(chunk("Hi"))]
    await text_of(open_upstream(stream_usage=False))
    assert mock.requests[0].json["stream"] is True
    assert "stream_options" not in mock.requests[0].json


async def test_bytes_may_be_cut_anywhere(mock: MockUpstream, open_upstream: Open) -> None:
    async def in_drops(exchange: Exchange) -> None:
        await exchange.send(EVENTS_HEAD + CHUNKED)
        for byte in event(chunk("é\u2028")) + event(chunk("!")) + event(b"[DONE]"):
            await exchange.send(http_chunks(bytes([byte])))
        await exchange.send(http_chunks(b""))

    mock.behaviours = [in_drops]
    assert await text_of(open_upstream()) == "é\u2028!"


FIRST = stream_bytes(chunk("Hel"))


@pytest.mark.parametrize(
    ("behaviour", "kind", "message", "begins"),
    [
        (answers(HELLO), Malformed, "application/json instead of text/event-stream", False),
        (raw(document(b"<html>", type_="text/html")), Malformed, "is text/html", False),
        (answers({}, status=500), Refused, "500", False),
        (raw(EVENTS_HEAD + b"content-length: 0\r\n\r\n"), Malformed, "before it began", False),
        (cut(EVENTS_HEAD + CHUNKED), HalfAnswered, "in the middle", False),
        (cut(EVENTS_HEAD + b"\r\n<html>oops</html>"), HalfAnswered, "of a chunk", False),
        (streams(), Malformed, "before it began", False),
        (streams(b"garbage"), Malformed, "not JSON", False),
        (streams({"error": {"message": "no memory"}}), BrokenOff, "reported an error", False),
        (cut(FIRST), HalfAnswered, "in the middle", True),
        (raw(FIRST + b"0\r\n\r\n"), HalfAnswered, "before its end", True),
        (cut(EVENTS_HEAD + b"\r\n" + event(chunk("Hel"))), HalfAnswered, "before its end", True),
        (raw(FIRST + http_chunks(b"data: {", b"")), HalfAnswered, "of a chunk", True),
        (streams(chunk("Hel"), b'{"choices'), Malformed, "not JSON", True),
        (streams(chunk("Hel"), b'{"x": "\xff"}'), Malformed, "not UTF-8", True),
        (streams(chunk("Hel", finish="stop"), chunk("lo")), Malformed, "after choice 0", True),
        (streams(chunk("Hel"), {"error": "no memory"}), BrokenOff, "reported an error", True),
        (streams(chunk("Hel"), b"x" * 2**20), TooLarge, "1048576 bytes", True),
    ],
)
async def test_a_broken_stream_is_an_error_and_is_not_repeated(
    mock: MockUpstream,
    open_upstream: Open,
    behaviour: Behaviour,
    kind: type[UpstreamFailed],
    message: str,
    begins: bool,
) -> None:
    mock.behaviours = [behaviour]
    upstream, received = open_upstream(), list[Chunk]()
    with pytest.raises(kind, match=message) as failure:
        async with upstream.stream(chat()) as stream:
            async for one in stream:
                received.append(one)
    assert type(failure.value) is kind
    assert [text_in(one) for one in received] == (["Hel"] if begins else [])
    assert (failure.value.attempts, len(mock.requests)) == (1, 1)
    mock.behaviours = [streams(chunk("Hi"))]
    assert await text_of(upstream) == "Hi"


async def test_a_stream_that_has_not_begun_is_repeated(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [cut(), answers({}, status=503), streams(chunk("Hi"))]
    async with open_upstream().stream(chat()) as stream:
        assert stream.attempts == 3


@pytest.mark.parametrize(
    ("config", "data", "phase"),
    [
        ({"first_byte_timeout_s": 0.05}, b"", "first byte"),
        ({"first_byte_timeout_s": 0.05}, EVENTS_HEAD + CHUNKED, "first byte"),
        ({"first_byte_timeout_s": 0.05}, stream_bytes() + http_chunks(b": wait\n\n"), "first byte"),
        ({"chunk_timeout_s": 0.05}, FIRST, "between chunks"),
        ({"timeout_s": 0.2}, FIRST, "total"),
    ],
)
async def test_each_phase_has_its_time_out(
    mock: MockUpstream, open_upstream: Open, config: dict[str, float], data: bytes, phase: str
) -> None:
    mock.behaviours = [stalls(data)]
    with pytest.raises(TimedOut) as failure:
        await text_of(open_upstream(**config))
    assert failure.value.phase == phase
    await mock.until(lambda seen: seen.open == 0)


async def test_a_stream_without_end_is_left(mock: MockUpstream, open_upstream: Open) -> None:
    async def endless(exchange: Exchange) -> None:
        await exchange.send(EVENTS_HEAD + CHUNKED)
        while True:
            await exchange.send(http_chunks(event(chunk("x" * 1_000))))

    mock.behaviours = [endless]
    with pytest.raises(TooLarge, match="100000 bytes"):
        await text_of(open_upstream(answer_bytes_max=100_000))
    await mock.until(lambda seen: seen.open == 0)


async def test_a_slow_reader_slows_the_upstream_down(
    mock: MockUpstream, open_upstream: Open
) -> None:
    """What it does not take is not hoarded here."""
    sent, is_held_up = 0, asyncio.Event()
    piece = http_chunks(event(chunk("x" * 500_000)))

    async def floods(exchange: Exchange) -> None:
        nonlocal sent
        exchange.writer.write(EVENTS_HEAD + CHUNKED)
        while sent < 2**28:
            sent += len(piece)
            exchange.writer.write(piece)
            try:
                await asyncio.wait_for(exchange.writer.drain(), 0.2)
            except TimeoutError:
                break
        is_held_up.set()
        await exchange.until_left()
        exchange.writer.transport.abort()

    mock.behaviours = [floods]
    async with open_upstream(answer_bytes_max=2**30).stream(chat()) as stream:
        await anext(stream)
        await is_held_up.wait()
        assert sent < 2**28
        assert text_in(await anext(stream)) == "x" * 500_000
    await mock.until(lambda seen: seen.open == 0)


async def test_a_reader_that_leaves_closes_the_upstreams_connection(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [stalls(FIRST)]
    async with open_upstream().stream(chat()) as stream:
        await anext(stream)
        assert mock.open == 1
    await mock.until(lambda seen: seen.open == 0)


async def stalled(mock: MockUpstream, upstream: Upstream, data: bytes) -> asyncio.Future[None]:
    """Somebody reads a stream that gives no more than this, and has read what there is."""
    mock.behaviours = [stalls(data)]
    began = asyncio.Event()

    async def read() -> None:
        async with upstream.stream(chat()) as stream:
            async for _ in stream:
                began.set()

    reading = asyncio.ensure_future(read())
    await mock.until(lambda seen: len(seen.requests) == 1)
    if data == FIRST:
        await began.wait()
    return reading


@pytest.mark.parametrize("data", [b"", EVENTS_HEAD + CHUNKED, FIRST])
async def test_cancelling_reaches_the_upstream_in_every_phase(
    mock: MockUpstream, open_upstream: Open, data: bytes
) -> None:
    upstream = open_upstream()
    reading = await stalled(mock, upstream, data)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await mock.until(lambda seen: seen.open == 0)
    assert upstream.statistics.in_flight == 0
    assert upstream.statistics.breaker == "closed"


async def test_cancelling_a_whole_answer_reaches_the_upstream(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [stalls()]
    asking = asyncio.ensure_future(open_upstream().answer(chat()))
    await mock.until(lambda seen: len(seen.requests) == 1)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await mock.until(lambda seen: seen.open == 0)


async def test_a_stream_takes_a_place_until_it_is_left(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [stalls(FIRST)]
    upstream = open_upstream(in_flight_max=1)
    async with upstream.stream(chat()):
        with pytest.raises(Overloaded):
            await upstream.answer(chat())
    mock.behaviours = [answers(HELLO)]
    await upstream.answer(chat())


async def test_connections_are_kept_and_used_again(mock: MockUpstream, open_upstream: Open) -> None:
    mock.behaviours = [streams(chunk("Hi")), answers(HELLO), answers({}, status=400)] * 10
    upstream = open_upstream()
    for _ in range(10):
        assert await text_of(upstream) == "Hi"
        await upstream.answer(chat())
        with pytest.raises(Refused):
            await upstream.answer(chat())
    assert (mock.accepted, mock.open) == (1, 1)


async def test_an_end_of_the_answer_that_comes_late_does_not_cost_the_connection(
    mock: MockUpstream, open_upstream: Open
) -> None:
    async def late(exchange: Exchange) -> None:
        await exchange.send(stream_bytes(chunk("Hi"), b"[DONE]"))
        for _ in range(20):  # turns of the loop, in which the caller sees the end of the stream
            await asyncio.sleep(0)
        await exchange.send(http_chunks(b""))

    mock.behaviours = [late]
    upstream = open_upstream()
    await text_of(upstream)
    await text_of(upstream)
    assert mock.accepted == 1


async def test_an_answer_that_does_not_end_after_done_is_closed(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [stalls(stream_bytes(chunk("Hi"), b"[DONE]"))]
    assert await text_of(open_upstream()) == "Hi"
    await mock.until(lambda seen: seen.open == 0)


async def test_no_connection_is_left_after_many_failures(
    mock: MockUpstream, open_upstream: Open
) -> None:
    misbehaviours = [cut(), cut(FIRST), stalls(FIRST), streams(b"garbage"), streams(chunk("Hi"))]
    mock.behaviours = misbehaviours * 10
    upstream = open_upstream(attempts_max=1, chunk_timeout_s=0.05)

    async def one() -> None:
        with suppress(UpstreamFailed):
            await text_of(upstream)

    await asyncio.gather(*(one() for _ in range(50)))
    await mock.until(lambda seen: seen.open <= 20)  # whose answers came to their end
    await upstream.close()
    await mock.until(lambda seen: seen.open == 0)
    assert upstream.statistics.in_flight == 0


@pytest.mark.parametrize("data", [b"", EVENTS_HEAD + CHUNKED, FIRST])
async def test_closing_ends_what_is_in_flight(
    mock: MockUpstream, open_upstream: Open, data: bytes
) -> None:
    upstream = open_upstream()
    reading = await stalled(mock, upstream, data)
    await upstream.close()
    await upstream.close()
    with pytest.raises(Closed):
        await reading
    with pytest.raises(Closed):
        await upstream.answer(chat())
    assert not (await upstream.probe()).is_healthy
    await mock.until(lambda seen: seen.open == 0)


async def test_closing_ends_a_stream_that_nobody_reads_just_now(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [stalls(FIRST)]
    upstream = open_upstream()
    async with upstream.stream(chat()) as stream:
        await anext(stream)
        await upstream.close()
        with pytest.raises(Closed):
            await anext(stream)

"""Whole answers of a real server that misbehaves."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp.client_reqrep import ConnectionKey

from engine.runtimes.upstream import (
    Busy,
    Call,
    CallerTimedOut,
    HalfAnswered,
    Invalid,
    Malformed,
    NotAnswered,
    Overloaded,
    Refused,
    RequestTimedOut,
    TimedOut,
    TooLarge,
    Unreachable,
    UpstreamFailed,
)
from engine.runtimes.upstream.wire import failure_before_answer
from tests.upstream.conftest import Open, chat
from tests.upstream.server import (
    CHUNKED,
    HELLO,
    Behaviour,
    Exchange,
    MockUpstream,
    answers,
    cut,
    document,
    http_chunks,
    raw,
    stalls,
)

PEER = ConnectionKey("peer.internal", 443, True, True, None, None, None)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"


async def test_an_answer_comes_as_it_was_sent(mock: MockUpstream, open_upstream: Open) -> None:
    answer = await open_upstream().answer(chat(request_id="request-7"))
    assert msgspec.json.decode(answer.body) == HELLO
    assert answer.usage is not None
    assert (answer.usage.total_tokens, answer.attempts) == (4, 1)
    (request,) = mock.requests
    assert request.line == "POST /v1/chat/completions HTTP/1.1"
    assert request.headers["x-request-id"] == "request-7"
    assert "authorization" not in request.headers


async def test_the_model_is_the_upstreams_and_the_rest_is_the_clients(
    mock: MockUpstream, open_upstream: Open
) -> None:
    body = {"model": "endpoint", "messages": [], "stream": True, "stream_options": {}, "x": [1.5]}
    await open_upstream().answer(Call(kind="chat", body=body))
    assert mock.requests[0].json == {"model": "small", "messages": [], "x": [1.5]}


@pytest.mark.parametrize(
    ("kind", "path", "answer"),
    [
        ("text", "completions", {"choices": [{"text": "Hi"}]}),
        ("embeddings", "embeddings", {"data": [{"embedding": [0.5]}]}),
    ],
)
async def test_each_kind_has_its_path(
    mock: MockUpstream, open_upstream: Open, kind: Any, path: str, answer: Any
) -> None:
    mock.behaviours = [answers(answer)]
    await open_upstream(url=mock.url + "/").answer(Call(kind=kind, body={"input": "Hi"}))
    assert mock.requests[0].line == f"POST /v1/{path} HTTP/1.1"


async def test_a_large_request_arrives_whole(mock: MockUpstream, open_upstream: Open) -> None:
    text = "é" * 2_000_000
    await open_upstream().answer(Call(kind="chat", body={"messages": [text]}))
    assert mock.requests[0].json["messages"] == [text]
    assert "transfer-encoding" not in mock.requests[0].headers


@pytest.mark.parametrize(
    ("behaviour", "kind", "message"),
    [
        (cut(), NotAnswered, "before it answered"),
        (cut(b"HTTP/1.1 200"), HalfAnswered, "in its head"),
        (cut(HEAD), HalfAnswered, "in its head"),
        (cut(HEAD + b"content-length: 10\r\n\r\n{"), HalfAnswered, "in the middle"),
        (cut(HEAD + CHUNKED + b"5\r\n{"), HalfAnswered, "in the middle"),
        (cut(HEAD + b"\r\n" + b'{"choices": [{"mess'), Malformed, "not JSON"),
        (cut(b"garbage\r\n\r\n"), Malformed, "not HTTP"),
        (raw(document(b"")), HalfAnswered, "empty"),
        (raw(document(b"garbage")), Malformed, "not JSON"),
        (raw(document(b'"\xff"')), Malformed, "not UTF-8"),
        (raw(document(b"<html>", type_="text/html; charset=utf-8")), Malformed, "is text/html"),
        (raw(document(b"{}", type_="")), Malformed, "of an unknown type"),
        (raw(document(b"{}", type_="a/b\tsecret")), Malformed, "of an unknown type"),
        (answers(HELLO, headers={"content-encoding": "gzip"}), Malformed, "compressed"),
        (answers(HELLO, status=201), Refused, "201"),
        (answers({}, status=302, headers={"location": "/other"}), Refused, "302"),
        (answers({"error": {"message": "too long"}}, status=400), Invalid, "400 .*: too long"),
        (answers({"error": {"message": "trace"}}, status=500), Refused, r"500 \(.*\)$"),
        (cut(HEAD.replace(b"200", b"500") + b"content-length: 9\r\n\r\n{"), Refused, "500"),
    ],
)
async def test_an_answer_that_is_none_is_an_error_that_says_why(
    mock: MockUpstream,
    open_upstream: Open,
    behaviour: Behaviour,
    kind: type[UpstreamFailed],
    message: str,
) -> None:
    mock.behaviours = [behaviour]
    upstream = open_upstream(attempts_max=1)
    with pytest.raises(kind, match=message) as failure:
        await upstream.answer(chat())
    assert type(failure.value) is kind
    assert failure.value.attempts == 1
    assert len(mock.requests) == 1
    mock.behaviours = [answers(HELLO)]
    assert (await upstream.answer(chat())).attempts == 1


async def test_a_body_in_a_garbled_coding_is_an_error(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [cut(HEAD + CHUNKED + b"zz\r\n")]
    # Which one depends on whether head and body come in one piece.
    with pytest.raises((Malformed, HalfAnswered), match=r"not HTTP|in the middle"):
        await open_upstream().answer(chat())
    assert len(mock.requests) == 1


@pytest.mark.parametrize(
    ("config", "data", "phase"),
    [
        ({"first_byte_timeout_s": 0.05}, b"", "first byte"),
        ({"first_byte_timeout_s": 0.05}, b"HTTP/1.1 200 OK\r\n", "first byte"),
        ({"chunk_timeout_s": 0.05}, HEAD + b"content-length: 10\r\n\r\n{", "between chunks"),
        ({"timeout_s": 0.05}, b"", "total"),
        ({"timeout_s": 0.2}, HEAD + b"content-length: 10\r\n\r\n{", "total"),
    ],
)
async def test_each_phase_has_its_time_out(
    mock: MockUpstream, open_upstream: Open, config: dict[str, float], data: bytes, phase: str
) -> None:
    mock.behaviours = [stalls(data)]
    with pytest.raises(TimedOut) as failure:
        await open_upstream(**config).answer(chat())
    assert (failure.value.phase, failure.value.verdict) == (phase, "failed")
    assert failure.value.attempts == 1
    await mock.until(lambda seen: seen.open == 0)


async def test_a_caller_with_less_time_says_nothing_about_the_upstream(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [stalls()]
    with pytest.raises(CallerTimedOut) as failure:
        await open_upstream().answer(chat(timeout_s=0.05))
    assert (failure.value.seconds, failure.value.verdict) == (0.05, "unknown")


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        ({"asked_s": 0.02}, RequestTimedOut),
        ({"asked_s": 0.02, "timeout_s": 5.0, "patience_s": 5.0}, RequestTimedOut),
        ({"asked_s": 5.0, "timeout_s": 0.02}, CallerTimedOut),
        ({"asked_s": 5.0}, TimedOut),
        ({"asked_s": 0.05}, TimedOut),
    ],
)
async def test_the_shortest_limit_says_whose_it_was(
    mock: MockUpstream,
    open_upstream: Open,
    limits: dict[str, float],
    kind: type[TimedOut],
) -> None:
    mock.behaviours = [stalls()]
    upstream = open_upstream(timeout_s=0.05)
    with pytest.raises(TimedOut) as failure:
        await upstream.answer(chat(**limits))
    assert type(failure.value) is kind
    assert failure.value.verdict == ("failed" if kind is TimedOut else "unknown")


async def test_a_handshake_that_never_ends_is_a_connection_that_takes_too_long(
    mock: MockUpstream, open_upstream: Open, pauses: list[float]
) -> None:
    upstream = open_upstream(url=mock.url.replace("http", "https"), connect_timeout_s=0.05)
    with pytest.raises(TimedOut) as failure:
        await upstream.answer(chat())
    assert (failure.value.phase, failure.value.attempts) == ("connect", 3)
    assert len(pauses) == 2


async def test_nobody_at_the_port_is_unreachable(open_upstream: Open, pauses: list[float]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and never listens
        upstream = open_upstream(url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1")
        with pytest.raises(Unreachable, match="refused the connection") as failure:
            await upstream.answer(chat())
    assert failure.value.attempts == 3
    assert len(pauses) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (aiohttp.ClientConnectorDNSError(PEER, socket.gaierror()), "name is not known"),
        (aiohttp.ClientConnectorSSLError(PEER, ssl.SSLError()), "does not speak TLS"),
        (
            aiohttp.ClientConnectorCertificateError(PEER, ssl.SSLCertVerificationError()),
            "certificate is not valid",
        ),
        (aiohttp.ClientConnectorError(PEER, OSError(errno.EMFILE, "")), "too many files"),
        (aiohttp.ClientConnectorError(PEER, OSError()), "could not be connected to"),
    ],
)
def test_why_there_is_no_connection_is_told(error: Exception, message: str) -> None:
    failure = failure_before_answer(error, connect_s=1.0)
    assert isinstance(failure, Unreachable)
    assert message in failure.detail
    assert "peer.internal" not in failure.detail


async def test_a_name_that_cannot_be_one_is_unreachable(open_upstream: Open) -> None:
    upstream = open_upstream(url=f"http://{'a' * 64}.invalid", attempts_max=1)
    with pytest.raises(Unreachable, match="name is not known"):
        await upstream.answer(chat())


async def test_a_refusal_does_not_wait_for_the_end_of_its_body(
    mock: MockUpstream, open_upstream: Open
) -> None:
    head = HEAD.replace(b"200", b"503") + b"retry-after: 2\r\ncontent-length: 9\r\n\r\n{"
    mock.behaviours = [stalls(head), answers(HELLO)]
    assert (await open_upstream().answer(chat())).attempts == 2


async def test_no_tls_where_tls_is_wanted_is_unreachable(
    mock: MockUpstream, open_upstream: Open
) -> None:
    async def hangs_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(hangs_up, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        upstream = open_upstream(url=f"https://127.0.0.1:{port}/v1", attempts_max=1)
        with pytest.raises(Unreachable):
            await upstream.answer(chat())


@pytest.mark.parametrize(
    "behaviour", [cut(), *[answers({}, status=status) for status in (429, 502, 503, 504)]]
)
async def test_what_has_not_begun_is_repeated(
    mock: MockUpstream, open_upstream: Open, pauses: list[float], behaviour: Behaviour
) -> None:
    mock.behaviours = [behaviour, behaviour, answers(HELLO)]
    upstream = open_upstream()
    answer = await upstream.answer(chat())
    assert (answer.attempts, len(mock.requests)) == (3, 3)
    assert 0.05 <= pauses[0] <= 0.1 <= pauses[1] <= 0.2
    assert [request.body for request in mock.requests[1:]] == [mock.requests[0].body] * 2
    assert (upstream.statistics.calls, upstream.statistics.attempts) == (1, 3)


async def test_a_large_request_is_repeated_whole(mock: MockUpstream, open_upstream: Open) -> None:
    mock.behaviours = [answers({}, status=503), answers(HELLO)]
    await open_upstream().answer(Call(kind="chat", body={"messages": ["x" * 1_000_000]}))
    assert mock.requests[0].body == mock.requests[1].body


async def test_retry_after_is_honoured(
    mock: MockUpstream, open_upstream: Open, pauses: list[float]
) -> None:
    busy = answers({}, status=429, headers={"retry-after": "2"})
    mock.behaviours = [busy, answers(HELLO)]
    await open_upstream().answer(chat())
    assert [2 < pause < 2.2 for pause in pauses] == [True]


async def test_a_long_retry_after_is_handed_on(
    mock: MockUpstream, open_upstream: Open, pauses: list[float]
) -> None:
    mock.behaviours = [answers({}, status=429, headers={"retry-after": "30"})]
    with pytest.raises(Busy) as failure:
        await open_upstream().answer(chat())
    assert (failure.value.retry_after_s, failure.value.attempts, pauses) == (30.0, 1, [])


async def test_a_connection_that_died_while_idle_costs_no_request(
    mock: MockUpstream, open_upstream: Open
) -> None:
    upstream = open_upstream()
    mock.behaviours = [answers(HELLO), cut(), answers(HELLO)]
    await upstream.answer(chat())
    assert (await upstream.answer(chat())).attempts == 2
    assert mock.accepted == 2


async def gigabyte(exchange: Exchange) -> None:
    exchange.writer.write(HEAD + b"content-length: 1073741824\r\n\r\n")
    await _flood(exchange, b"x" * 2**20)


async def endless(exchange: Exchange) -> None:
    exchange.writer.write(HEAD + CHUNKED)
    await _flood(exchange, http_chunks(b"x" * 2**20))


async def _flood(exchange: Exchange, piece: bytes) -> None:
    for _ in range(1_024):
        await exchange.send(piece)
    raise AssertionError("the whole of it was taken")


@pytest.mark.parametrize("behaviour", [gigabyte, endless])
async def test_a_body_without_end_is_left(
    mock: MockUpstream, open_upstream: Open, behaviour: Behaviour
) -> None:
    mock.behaviours = [behaviour]
    with pytest.raises(TooLarge, match="2097152 bytes"):
        await open_upstream(answer_bytes_max=2 * 2**20).answer(chat())
    await mock.until(lambda seen: seen.open == 0)


async def test_a_body_that_says_it_is_too_large_is_not_waited_for(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [stalls(HEAD + b"content-length: 1073741824\r\n\r\n")]
    with pytest.raises(TooLarge):
        await open_upstream().answer(chat())
    await mock.until(lambda seen: seen.open == 0)


async def test_one_call_too_many_is_refused_at_once(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [stalls()]
    upstream = open_upstream(in_flight_max=2)
    calls = [asyncio.ensure_future(upstream.answer(chat())) for _ in range(2)]
    await mock.until(lambda seen: len(seen.requests) == 2)
    with pytest.raises(Overloaded) as failure:
        await upstream.answer(chat())
    assert (failure.value.code, failure.value.attempts) == ("overloaded", 0)
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    mock.behaviours = [answers(HELLO)]
    await upstream.answer(chat())

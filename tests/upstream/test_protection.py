"""An upstream in trouble is left alone, and keys stay where they belong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
import pytest
import pytest_asyncio

from engine.runtimes.upstream import (
    BreakerLimits,
    CallerTimedOut,
    CircuitOpen,
    HalfAnswered,
    KeyUnavailable,
    NotAnswered,
    Refused,
    Upstream,
    UpstreamConfig,
    UpstreamFailed,
)
from tests.upstream.conftest import SECRET, Clock, Open, chat
from tests.upstream.server import (
    HELLO,
    Behaviour,
    Exchange,
    MockUpstream,
    answers,
    chunk,
    cut,
    document,
    raw,
    stalls,
    stream_bytes,
    streams,
)

LIMITS = BreakerLimits(failures_min=3, open_seconds=1.0, answers_to_close=2)


@pytest_asyncio.fixture
async def guarded(open_upstream: Open) -> Upstream:
    return open_upstream(attempts_max=1, options={"breaker_limits": LIMITS})


def breaker_of(upstream: Upstream) -> str:
    return upstream.statistics.breaker


async def fail(upstream: Upstream, count: int) -> None:
    for _ in range(count):
        with pytest.raises(UpstreamFailed):
            await upstream.answer(chat())


async def test_an_upstream_that_keeps_failing_is_not_called(
    mock: MockUpstream, guarded: Upstream
) -> None:
    mock.behaviours = [answers({}, status=500)]
    await fail(guarded, 3)
    with pytest.raises(CircuitOpen) as failure:
        await guarded.answer(chat())
    assert (failure.value.retry_after_s, failure.value.attempts) == (1.0, 0)
    assert len(mock.requests) == 3
    assert breaker_of(guarded) == "open"
    assert (guarded.statistics.calls, guarded.statistics.failures) == (4, 4)


async def test_one_probe_at_a_time_finds_out_whether_it_is_back(
    mock: MockUpstream, guarded: Upstream, clock: Clock
) -> None:
    mock.behaviours = [answers({}, status=500)] * 3 + [stalls(), answers(HELLO)]
    await fail(guarded, 3)
    clock.now += 1.0
    probe = asyncio.ensure_future(guarded.answer(chat()))
    await mock.until(lambda seen: len(seen.requests) == 4)
    with pytest.raises(CircuitOpen):
        await guarded.answer(chat())
    probe.cancel()
    await asyncio.wait([probe])
    assert breaker_of(guarded) == "half open"
    await guarded.answer(chat())
    await guarded.answer(chat())
    assert breaker_of(guarded) == "closed"


async def test_a_failed_probe_opens_it_again(
    mock: MockUpstream, guarded: Upstream, clock: Clock
) -> None:
    mock.behaviours = [cut()]
    await fail(guarded, 3)
    clock.now += 1.0
    await fail(guarded, 1)
    with pytest.raises(CircuitOpen) as failure:
        await guarded.answer(chat())
    assert failure.value.retry_after_s == 2.0


async def test_a_stream_that_has_begun_does_not_hold_up_the_probes(
    mock: MockUpstream, guarded: Upstream, clock: Clock
) -> None:
    first = stalls(stream_bytes(chunk("Hel")))
    mock.behaviours = [*[cut()] * 3, first, answers(HELLO)]
    await fail(guarded, 3)
    clock.now += 1.0
    async with guarded.stream(chat()):
        await guarded.answer(chat())
    assert breaker_of(guarded) == "closed"


async def test_streams_that_always_break_open_it(mock: MockUpstream, guarded: Upstream) -> None:
    mock.behaviours = [cut(stream_bytes(chunk("Hel")))]
    for _ in range(3):
        with pytest.raises(HalfAnswered):
            async with guarded.stream(chat()) as stream:
                _ = [one async for one in stream]
    assert breaker_of(guarded) == "open"


@pytest.mark.parametrize("status", [400, 401, 404, 429])
async def test_refusals_of_a_request_are_signs_of_life(
    mock: MockUpstream, guarded: Upstream, status: int
) -> None:
    mock.behaviours = [answers({}, status=status)]
    await fail(guarded, 10)
    assert (guarded.statistics.breaker, len(mock.requests)) == ("closed", 10)


async def test_callers_in_a_hurry_do_not_open_it(mock: MockUpstream, guarded: Upstream) -> None:
    mock.behaviours = [stalls()]
    for _ in range(5):
        with pytest.raises(CallerTimedOut):
            await guarded.answer(chat(timeout_s=0.01))
    assert breaker_of(guarded) == "closed"


async def test_attempts_end_when_it_opens_and_the_failure_is_told(
    mock: MockUpstream, open_upstream: Open
) -> None:
    mock.behaviours = [answers({}, status=503)]
    upstream = open_upstream(attempts_max=10, options={"breaker_limits": LIMITS})
    with pytest.raises(Refused, match="503") as failure:
        await upstream.answer(chat())
    assert (failure.value.attempts, len(mock.requests)) == (3, 3)


async def test_an_upstream_that_dies_under_load_is_not_stormed(
    mock: MockUpstream, open_upstream: Open
) -> None:
    async def dies_with_all(exchange: Exchange) -> None:
        await mock.until(lambda seen: len(seen.requests) >= 40)
        exchange.writer.close()

    mock.behaviours = [dies_with_all]
    upstream = open_upstream(attempts_max=10, options={"breaker_limits": LIMITS})
    calls = [upstream.answer(chat()) for _ in range(40)]
    failures = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(failure) for failure in failures} == {NotAnswered}
    # All were on their way; only those who fail before the third may come again.
    assert len(mock.requests) <= 42


async def test_the_key_is_read_at_each_call(
    mock: MockUpstream, open_upstream: Open, environment: dict[str, str]
) -> None:
    mock.behaviours = [answers(HELLO), streams(chunk("Hi"))]
    upstream = open_upstream(api_key_env="MOCK_API_KEY")
    await upstream.answer(chat())
    environment["MOCK_API_KEY"] = "sk-test-turned\n"
    async with upstream.stream(chat()):
        pass
    sent = [request.headers["authorization"] for request in mock.requests]
    assert sent == [f"Bearer {SECRET}", "Bearer sk-test-turned"]


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("OTHER_API_KEY", None, "is not set"),
        ("MOCK_API_KEY", "", "holds no key"),
        ("MOCK_API_KEY", "two words", "holds no key"),
        ("MOCK_API_KEY", "x\r\nHost: elsewhere", "holds no key"),
        ("MOCK_API_KEY", "schlüssel", "holds no key"),
        ("DATABASE_PASSWORD", None, "not among those that may be read"),
    ],
)
async def test_without_its_key_nothing_is_sent(
    mock: MockUpstream,
    open_upstream: Open,
    environment: dict[str, str],
    variable: str,
    value: str | None,
    why: str,
) -> None:
    if value is not None:
        environment[variable] = value
    upstream = open_upstream(api_key_env=variable)
    with pytest.raises(KeyUnavailable, match=why) as failure:
        await upstream.answer(chat())
    assert variable in failure.value.detail
    assert not value or value not in failure.value.detail
    assert (failure.value.attempts, upstream.statistics.attempts, mock.accepted) == (0, 0, 0)


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that Python keeps with it."""
    yield error
    for before in (error.__cause__, error.__context__):
        if before is not None:
            yield from chain(before)


LEAKING = {"x-internal": "host-17.internal", "content-type": "host-17.internal/" + SECRET}


@pytest.mark.parametrize(
    "behaviour",
    [
        answers({"error": {"message": f"bad key {SECRET}"}}, status=401, headers=LEAKING),
        answers({"error": {"message": f"bad key {SECRET}"}}, status=400, headers=LEAKING),
        answers({"error": {"message": f"{SECRET} host-17.internal"}}, status=500),
        raw(document(b"{}", type_=f"{SECRET}/host-17.internal", headers=LEAKING)),
        raw(f"HTTP/1.1 {SECRET} x-internal: host-17.internal\r\n\r\n".encode()),
        cut(b"HTTP/1.1 200 OK\r\nx-internal: host-17.internal\r\n"),
        cut(document(b"{" + SECRET.encode(), headers=LEAKING)[:-3]),
        raw(document(SECRET.encode(), headers={"x-internal": "host-17.internal"})),
        cut(),
        stalls(),
    ],
)
async def test_no_error_holds_the_key_or_what_the_upstreams_headers_say(
    mock: MockUpstream, open_upstream: Open, behaviour: Behaviour
) -> None:
    mock.behaviours = [behaviour]
    upstream = open_upstream(api_key_env="MOCK_API_KEY", first_byte_timeout_s=0.5)
    with pytest.raises(UpstreamFailed) as failure:
        await upstream.answer(chat())
    for error in chain(failure.value):
        told = f"{error!r} {error} {vars(error)} {error.args}"
        assert SECRET not in told
        assert "internal" not in told
    assert SECRET not in f"{upstream!r} {vars(upstream)} {upstream.statistics}"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.org/v1",
        "example.org",
        "http://",
        "http://user:password@example.org/v1",
        "http://example.org/v1?key=secret",
        "http://example.org/v1#part",
        "http://example.org/v1\r\nx: y",
        "http://example.org\\@other.org",
        "http://example.org:port",
        "http://example.org:99999",
        "http://" + "a" * 3_000,
        "http://[::1",
        "http://[::zz]",
        "http://example.org:0",
    ],
)
def test_a_url_holds_an_address_and_nothing_else(url: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"url": url, "model": "small"}, UpstreamConfig)


@pytest.mark.parametrize(
    "url", ["https://example.org", "http://127.0.0.1:8000/v1/", "http://[::1]:80/v1", "http://a_b"]
)
def test_addresses_are_taken(url: str) -> None:
    config = msgspec.convert({"url": url, "model": "small"}, UpstreamConfig)
    assert str(config.base).rstrip("/").endswith("/v1")


@pytest.mark.parametrize(
    "members",
    [
        {"model": ""},
        {"timeout_s": 0},
        {"timeout_s": -1},
        {"timeout_s": 1e9},
        {"api_key_env": "sk-live-secret"},
        {"api_key_env": ""},
        {"api_key": "secret"},
        {"attempts_max": 0},
        {"in_flight_max": 0},
    ],
)
def test_other_members_are_checked_too(members: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"url": "http://a", "model": "small", **members}, UpstreamConfig)

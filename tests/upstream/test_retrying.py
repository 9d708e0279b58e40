"""What is repeated, when, and how often; and what an error status is worth."""

from __future__ import annotations

from datetime import UTC, datetime
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runtimes.upstream.errors import (
    Busy,
    HalfAnswered,
    Invalid,
    Malformed,
    NotAnswered,
    Refused,
    TimedOut,
    Unreachable,
    UpstreamFailed,
)
from engine.runtimes.upstream.refusals import refusal_of, retry_after_seconds
from engine.runtimes.upstream.retrying import Pauses, backoff_seconds, pause_before_retry

NOW = datetime(2026, 1, 5, 12, 0, tzinfo=UTC)


def refused(status: int, body: bytes = b"", *, retry_after: str | None = None) -> Refused:
    return refusal_of(status, body, retry_after=retry_after, secret="sk-secret", now=NOW)


def pause(failure: UpstreamFailed, *, attempts: int = 1, left_s: float = 60.0) -> float | None:
    return pause_before_retry(
        failure, attempts=attempts, attempts_max=3, left_s=left_s, random=Random(1)
    )


@pytest.mark.parametrize(
    "failure",
    [
        Unreachable("x"),
        NotAnswered("x"),
        TimedOut("connect", 1.0),
        *[refused(status) for status in (429, 502, 503, 504)],
    ],
)
def test_what_has_not_begun_to_answer_is_asked_again(failure: UpstreamFailed) -> None:
    assert pause(failure) is not None


@pytest.mark.parametrize(
    "failure",
    [
        HalfAnswered("x"),
        Malformed("x"),
        TimedOut("first byte", 1.0),
        TimedOut("between chunks", 1.0),
        TimedOut("total", 1.0),
        *[refused(status) for status in (201, 301, 400, 401, 403, 404, 422, 500, 501)],
    ],
)
def test_nothing_else_is(failure: UpstreamFailed) -> None:
    assert pause(failure) is None


def test_attempts_are_counted() -> None:
    assert pause(NotAnswered("x"), attempts=2) is not None
    assert pause(NotAnswered("x"), attempts=3) is None


def test_a_pause_that_leaves_no_time_for_the_answer_is_not_made() -> None:
    assert pause(NotAnswered("x"), left_s=0.001) is None


def test_retry_after_is_the_least_that_is_waited() -> None:
    waited = pause(refused(429, retry_after="2"))
    assert waited is not None
    assert 2.0 < waited < 2.2


@pytest.mark.parametrize(("asked", "left_s"), [("6", 60.0), ("2", 2.0)])
def test_an_upstream_that_asks_for_too_much_patience_is_not_waited_for(
    asked: str, left_s: float
) -> None:
    failure = refused(503, retry_after=asked)
    assert pause(failure, left_s=left_s) is None
    assert failure.retry_after_s == float(asked)


@settings(deadline=None)
@given(attempts=st.integers(1, 50), seed=st.integers(0, 1_000))
def test_backoff_grows_to_its_limit_and_varies_by_half(attempts: int, seed: int) -> None:
    pauses = Pauses(first_seconds=0.1, seconds_max=2.0)
    range_s = min(0.1 * 2 ** (attempts - 1), 2.0)
    waited = backoff_seconds(attempts, random=Random(seed), pauses=pauses)
    assert range_s / 2 <= waited <= range_s


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        (" 7 ", 7.0),
        ("1.5", 1.5),
        ("999999999", 3_600.0),
        ("Mon, 05 Jan 2026 12:00:30 GMT", 30.0),
        ("Mon, 05 Jan 2026 12:00:30 -0000", 30.0),
        ("Mon, 05 Jan 2026 11:00:00 GMT", 0.0),
        ("Mon, 05 Jan 2099 11:00:00 GMT", 3_600.0),
        ("-5", None),
        ("1e3", None),
        ("soon", None),
        ("0\x1f", None),
        ("Mon, 05 Jan 99999999999999999999 11:00:00 GMT", None),
        ("Mon, 05 Jan 2026 11:00:00 +99999999999999999999", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after_seconds(value, now=NOW) == seconds


@settings(deadline=None)
@given(
    value=st.text(max_size=40)
    | st.from_regex(r"\A(Mon, )?[0-9]+ Jan [0-9]+ [0-9]+:[0-9]+:[0-9]+ [A-Z+-]?[0-9]*\Z")
)
def test_no_retry_after_is_too_strange(value: str) -> None:
    seconds = retry_after_seconds(value, now=NOW)
    assert seconds is None or 0 <= seconds <= 3_600


@pytest.mark.parametrize(
    ("status", "kind", "code", "verdict"),
    [
        (400, Invalid, "invalid", "answered"),
        (401, Refused, "runtime_failed", "answered"),
        (404, Refused, "runtime_failed", "answered"),
        (415, Refused, "runtime_failed", "answered"),
        (422, Invalid, "invalid", "answered"),
        (429, Busy, "overloaded", "answered"),
        (500, Refused, "runtime_failed", "failed"),
        (503, Refused, "runtime_failed", "failed"),
        (302, Refused, "runtime_failed", "answered"),
        (599, Refused, "runtime_failed", "failed"),
    ],
)
def test_a_status_says_whose_fault_it_is(
    status: int, kind: type[Refused], code: str, verdict: str
) -> None:
    failure = refused(status)
    assert (type(failure), failure.code, failure.verdict) == (kind, code, verdict)
    assert str(status) in failure.detail


@pytest.mark.parametrize(
    "document",
    [
        {"error": {"message": "too\nlong for sk-secret"}},
        {"error": "too\nlong for sk-secret"},
        {"message": "too\nlong for sk-secret"},
    ],
)
def test_what_is_said_about_the_request_is_passed_on_cleaned(document: object) -> None:
    failure = refused(400, msgspec.json.encode(document))
    assert failure.detail.endswith("(Bad Request): too long for ***")


@pytest.mark.parametrize("status", [401, 403, 429, 500, 503])
def test_what_is_said_about_anything_else_is_not(status: int) -> None:
    failure = refused(status, b'{"error": {"message": "your key sk-s...ret, my stack trace"}}')
    assert "key" not in failure.detail
    assert "stack" not in failure.detail


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[1]", b'"x', b"\xff", b'{"error": {"message": 5}}', b"[" * 10_000]
)
def test_a_refusal_may_be_any_garbage(body: bytes) -> None:
    assert refused(400, body).detail == "the upstream answered 400 (Bad Request)"


def test_what_is_said_is_bounded() -> None:
    said = msgspec.json.encode({"error": {"message": "x" * 10_000}})
    assert len(refused(400, said).detail) < 400


@pytest.mark.parametrize(
    ("error", "field"),
    [
        ({"message": "too large", "param": "max_tokens"}, "max_tokens"),
        ({"message": "no such role", "param": "messages[0].role"}, "messages[0].role"),
        ({"message": "no such role", "param": "a: b\r\nc"}, None),
        ({"message": "no such role", "param": None}, None),
        ("too large", None),
    ],
)
def test_the_member_that_a_refusal_is_about_is_known_when_it_was_named(
    error: object, field: str | None
) -> None:
    failure = refused(400, msgspec.json.encode({"error": error}))
    assert isinstance(failure, Invalid)
    assert failure.field == field


@pytest.mark.parametrize(
    ("code", "told"),
    [("context_length_exceeded", "context_length_exceeded"), ("sk-secret", None), (400, None)],
)
def test_a_request_that_is_too_long_is_called_so_as_the_protocol_does(
    code: object, told: str | None
) -> None:
    failure = refused(400, msgspec.json.encode({"error": {"message": "too long", "code": code}}))
    assert isinstance(failure, Invalid)
    assert failure.openai_code == told

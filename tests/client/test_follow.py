"""Server-sent events: parsed at any cut, taken up where they were."""

from __future__ import annotations

import itertools
from contextlib import aclosing

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.errors import MalformedEvent
from switchback.client import Client, Problem
from switchback.client.sse import Parser, ServerSentEvent
from tests.client.gateway import Answer, Gateway, events_answer, problem

STREAM = (
    b": still here\n\n"
    b'id: 1\ndata: {"a":"\xe2\x80\xa8"}\n\n'  # U+2028, a line end to Python and not to SSE
    b"data: one\r\ndata: two\r\n\r\n"
    b"event: malformed\rdata:3\r\r"
    b"id: 9\n\n"
    b"retry: 5\nunknown: x\ndata\n\n"
)
EVENTS = [
    ServerSentEvent(id="1", event="message", data='{"a":"\u2028"}'.encode()),
    ServerSentEvent(id="1", event="message", data=b"one\ntwo"),
    ServerSentEvent(id="1", event="malformed", data=b"3"),
    ServerSentEvent(id="9", event="message", data=b""),
]


def frame(position: int) -> str:
    return f'id: {position}\ndata: {{"position": {position}}}\n\n'


@given(cuts=st.sets(st.integers(0, len(STREAM))))
def test_events_are_the_same_wherever_the_stream_is_cut(cuts: set[int]) -> None:
    parser, bounds = Parser(), [0, *sorted(cuts), len(STREAM)]
    chunks = [STREAM[a:b] for a, b in itertools.pairwise(bounds)]
    assert [event for chunk in chunks for event in parser.feed(chunk)] == EVENTS


def test_an_event_without_its_blank_line_is_not_there_yet() -> None:
    parser = Parser()
    assert list(parser.feed(b"data: one\n")) == []
    assert [event.data for event in parser.feed(b"\n")] == [b"one"]


async def positions(client: Client, count: int, *, after: int = 0) -> list[int]:
    seen: list[int] = []
    async with aclosing(client.follow_events(after=after)) as events:
        async for event in events:
            seen.append(event["position"])
            if len(seen) == count:
                break
    return seen


async def test_a_stream_goes_on_after_a_lost_connection_without_gap_or_repeat(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(
        events_answer(frame(5), frame(6), "id: 7\ndata: {"),  # cut in the middle of an event
        httpx.ConnectError("refused"),
        problem("unavailable", 503),
        events_answer(frame(7), frame(8)),
    )
    assert await positions(client, 4, after=4) == [5, 6, 7, 8]
    resumed = [request.headers["last-event-id"] for request in gateway.requests]
    assert resumed == ["4", "6", "6", "6"]


async def test_progress_makes_pauses_short_again(
    client: Client, gateway: Gateway, pauses: list[float]
) -> None:
    gateway.will(*[httpx.ConnectError("refused")] * 3, events_answer(frame(1)))
    gateway.will(events_answer(frame(2)))
    assert await positions(client, 2) == [1, 2]
    assert pauses == [0.05, 0.1, 0.2, 0.05]


async def test_a_silent_stream_is_taken_up_anew(client: Client, gateway: Gateway) -> None:
    gateway.will(httpx.ReadTimeout("silence"), events_answer(frame(1)))
    assert await positions(client, 1) == [1]


async def test_a_stream_that_never_comes_back_ends_with_the_reason(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(*[httpx.ConnectError("refused")] * 50)
    with pytest.raises(httpx.ConnectError):
        await positions(client, 1)


async def test_a_refused_stream_is_not_asked_for_again(client: Client, gateway: Gateway) -> None:
    gateway.will(problem("forbidden", 403))
    with pytest.raises(Problem, match="forbidden"):
        await positions(client, 1)
    assert len(gateway.requests) == 1


async def test_a_foreign_message_on_the_log_ends_the_stream_and_names_its_position(
    client: Client, gateway: Gateway
) -> None:
    gateway.will(events_answer(frame(1), "event: malformed\ndata: 2\n\n"))
    with pytest.raises(MalformedEvent) as raised:
        await positions(client, 2)
    assert raised.value.position == 2


async def test_events_of_one_entity(client: Client, gateway: Gateway) -> None:
    gateway.will(events_answer(frame(1)), Answer(status=500))
    async with aclosing(client.follow_events(entity="endpoint/chat")) as events:
        assert (await anext(events))["position"] == 1
    assert gateway.last.query == {"entity": "endpoint/chat"}

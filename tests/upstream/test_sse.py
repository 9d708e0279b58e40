"""Events are the same wherever the network cut them, and none is without bound."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.runtimes.upstream.errors import TooLarge
from engine.runtimes.upstream.sse import EventParser


def parsed(*chunks: bytes) -> list[bytes]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@settings(deadline=None)
@given(data=st.data())
def test_cuts_do_not_matter(end: bytes, data: st.DataObject) -> None:
    lines = [b"data: one", b"", b": alive", b"event: x", b"data:two", b"data:  three", b"", b""]
    text = end.join(lines) + end + b"data: never ended"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=12)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert parsed(*pieces) == [b"one", b"two\n three"]


def test_a_character_that_python_takes_for_a_line_end_is_none() -> None:
    assert parsed("data: a\u2028b\x0bc\n\n".encode()) == ["a\u2028b\x0bc".encode()]


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    assert parsed(b"\xef\xbb\xbfdata: 1\n\n") == [b"1"]


def test_events_without_data_are_none() -> None:
    assert parsed(b"event: ping\n\n: comment\n\nid: 7\nretry: 10\n\n") == []


def test_the_line_ends_of_a_cr_alone_wait_for_what_follows() -> None:
    parser = EventParser()
    assert parser.feed(b"data: 1\r\n\r") == []
    assert parser.feed(b"\ndata: 2\r\n\r\n") == [b"1", b"2"]


@pytest.mark.parametrize(
    "text",
    [
        b"x" * 65,
        b"data: " + b"x" * 65,
        b"data: x\n" * 20,
        b"data:\n" * 20,
        b"data: " + b"x" * 65 + b"\n\n",
    ],
)
def test_an_event_without_end_is_refused(text: bytes) -> None:
    parser = EventParser(event_bytes_max=64)
    with pytest.raises(TooLarge, match="64 bytes"):
        for index in range(len(text)):
            parser.feed(text[index : index + 1])


def test_many_small_events_are_not_one_large_one() -> None:
    parser = EventParser(event_bytes_max=64)
    assert len([event for _ in range(1_000) for event in parser.feed(b"data: x\n\n")]) == 1_000


def test_it_knows_whether_an_end_would_cut_an_event() -> None:
    parser = EventParser()
    assert parser.is_between_events
    parser.feed(b"data: 1\n")
    assert not parser.is_between_events
    parser.feed(b"\n")
    assert parser.is_between_events
    parser.feed(b"dat")
    assert not parser.is_between_events

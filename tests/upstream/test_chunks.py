"""Chunks come in order and whole, or the error says what was wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.runtimes.upstream.answers import Chunk, Delta, whole_usage
from engine.runtimes.upstream.calls import Kind
from engine.runtimes.upstream.chunks import ChunkReader
from engine.runtimes.upstream.errors import (
    BrokenOff,
    HalfAnswered,
    Malformed,
    TooLarge,
    UpstreamFailed,
)
from tests.upstream.server import HELLO, chunk, event

DONE = b"[DONE]"
USAGE = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}


def taken(*events: Any) -> list[Chunk]:
    """All chunks of a stream of these events that then ends."""
    reader = ChunkReader(stream_bytes_max=10_000)
    reader.feed(b"".join(map(event, events)))
    chunks = []
    while (one := reader.take()) is not None:
        chunks.append(one)
    if not reader.is_over:
        reader.end()
    assert reader.is_over
    return chunks


def test_a_stream_gives_its_chunks_as_they_came() -> None:
    first, last, usage = taken(chunk("Hel"), chunk("lo", finish="stop"), USAGE, DONE)
    assert msgspec.json.decode(first.data) == chunk("Hel")
    assert first.choices[0].delta == Delta(content="Hel")
    assert last.choices[0].finish_reason == "stop"
    assert usage.usage is not None
    assert usage.usage.completion_tokens == 2


def test_a_reader_tells_what_has_arrived_and_was_not_taken() -> None:
    reader = ChunkReader(stream_bytes_max=10_000)
    assert not reader.has_more
    reader.feed(event(chunk("a")) + event(b"garbage") + event(DONE)[:-1])
    assert reader.has_more
    reader.take()
    assert reader.has_more
    with pytest.raises(Malformed):
        reader.take()
    assert not reader.has_more
    reader.feed(b"\n")
    assert not reader.has_more, "only the end has arrived"


def test_chunks_of_text_completions_are_understood() -> None:
    (one,) = taken({"choices": [{"index": 0, "text": "Hi", "finish_reason": "length"}]}, DONE)
    assert one.choices[0].text == "Hi"


def test_a_stream_that_finished_every_choice_is_whole_without_done() -> None:
    assert len(taken(chunk("a", index=1), chunk("b", finish="stop"), chunk(index=1, finish="x")))


def test_what_follows_done_is_nothing() -> None:
    assert len(taken(chunk("a"), DONE, b"garbage")) == 1


def test_empty_chunks_may_follow_the_end_of_a_choice() -> None:
    assert len(taken(chunk("a", finish="stop"), chunk(), DONE)) == 2


@pytest.mark.parametrize(
    ("events", "kind", "message"),
    [
        ([], Malformed, "before it began"),
        ([DONE], Malformed, "before it began"),
        ([chunk("a")], HalfAnswered, "before its end"),
        ([chunk("a", finish="stop"), chunk("b", index=1)], HalfAnswered, "before its end"),
        ([chunk("a", finish="stop"), chunk("b")], Malformed, "goes on after choice 0 ended"),
        ([b"garbage"], Malformed, "not JSON"),
        ([b"<html>"], Malformed, "not JSON"),
        ([b"[1]"], Malformed, "shape"),
        ([b'{"choices": [{"delta": {"content": 5}}]}'], Malformed, "shape"),
        ([b'{"choices": [{"index": "0"}]}'], Malformed, "shape"),
        ([b'{"id": "x"}'], Malformed, "no choices"),
        ([b'{"id": "\xff", "choices": []}'], Malformed, "not UTF-8"),
        ([b'{"x": ' + b"[" * 9_000], Malformed, "nested too deeply"),
        ([b'{"error": ' + b"[" * 9_000], Malformed, "nested too deeply"),
        ([chunk("a"), {"error": {"message": "my stack trace"}}], BrokenOff, "reported an error"),
    ],
)
def test_a_stream_in_disorder_is_an_error_that_says_so(
    events: list[Any], kind: type[UpstreamFailed], message: str
) -> None:
    with pytest.raises(kind, match=message) as failure:
        taken(*events)
    assert "stack trace" not in failure.value.detail


def test_a_stream_cut_in_an_event_is_half() -> None:
    reader = ChunkReader(stream_bytes_max=10_000)
    reader.feed(event(chunk("a", finish="stop")) + b"data: {")
    reader.take()
    with pytest.raises(HalfAnswered, match="middle of a chunk"):
        reader.end()


def test_a_stream_has_an_end() -> None:
    reader = ChunkReader(stream_bytes_max=1_000)
    with pytest.raises(TooLarge, match="1000 bytes"):
        for _ in range(1_000):
            reader.feed(event(chunk("a")))
            reader.take()


COMPLETION = {"choices": [{"index": 0, "text": "Hi"}]}
EMBEDDINGS = {"data": [{"embedding": [0.1, 0.2]}], "usage": {"prompt_tokens": 2}}


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("chat", HELLO),
        ("chat", {"choices": [{"message": {"content": None, "tool_calls": [{}]}}]}),
        ("chat", {"choices": [{"message": {"content": [{"type": "text", "text": "Hi"}]}}]}),
        ("text", COMPLETION),
        ("embeddings", EMBEDDINGS),
        ("embeddings", {"data": [{"embedding": "AAAA"}]}),
    ],
)
def test_answers_of_each_kind_are_understood(kind: Kind, document: dict[str, Any]) -> None:
    usage = whole_usage(kind, msgspec.json.encode(document))
    assert (usage is None) == ("usage" not in document)


@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("chat", b"<html>", "not JSON"),
        ("chat", b'{"choices": [', "not JSON"),
        ("chat", b"null", "shape"),
        ("chat", b"{}", "shape"),
        ("chat", b'{"choices": []}', "no result"),
        ("chat", msgspec.json.encode(COMPLETION), "shape"),
        ("chat", b'{"id": "\xff", "choices": [{"message": {}}]}', "not UTF-8"),
        ("text", msgspec.json.encode(HELLO), "shape"),
        ("text", b'{"choices": []}', "no result"),
        ("embeddings", b'{"data": []}', "no result"),
        ("embeddings", b'{"data": [{"embedding": null}]}', "no result"),
        ("embeddings", msgspec.json.encode(HELLO), "shape"),
        ("embeddings", b'{"data": [{"embedding": ' + b"[" * 100_000, "nested too deeply"),
    ],
)
def test_other_answers_are_errors_that_say_why(kind: Kind, body: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        whole_usage(kind, body)

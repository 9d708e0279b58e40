"""First tokens, tokens and usage of a stream, whatever a version sends."""

from __future__ import annotations

from typing import Any

import pytest

from engine.runtimes.documents import Usage
from handlers.http.stream_times import StreamTimes
from tests.batching.fakes import Clock


def said(text: str, index: int = 0) -> dict[str, Any]:
    return {"choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}


def usage(completion: int) -> dict[str, Any]:
    return {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": completion}}


def timed(*chunks: tuple[float, Any]) -> StreamTimes:
    """Asked for at 10 s; each chunk comes at its time."""
    clock = Clock()
    times = StreamTimes(10.0, clock=clock)
    for at_s, chunk in chunks:
        clock.now_s = at_s
        times.chunk(chunk)
    return times


ROLE = {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def test_the_first_token_is_the_first_that_is_said_not_who_speaks() -> None:
    assert timed((11.0, ROLE), (12.5, said("Pa")), (13.0, said("ris"))).first_token_s == 2.5


@pytest.mark.parametrize(
    "choice",
    [
        {"index": 0, "text": "Paris"},
        {"index": 0, "delta": {"reasoning_content": "Well"}},
        {"index": 0, "delta": {"tool_calls": [{"index": 0}]}},
    ],
)
def test_texts_reasons_and_calls_are_said_too(choice: dict[str, Any]) -> None:
    assert timed((12.0, {"choices": [choice]})).first_token_s == 2.0


def test_a_token_takes_the_mean_between_the_first_and_the_last_by_the_versions_count() -> None:
    times = timed((12.0, said("a")), (14.0, said("bcd")), (18.0, END), (30.0, usage(4)))
    assert times.output_token_s == 6.0 / 3
    assert times.usage == Usage(prompt_tokens=7, completion_tokens=4)


def test_choices_that_are_answered_side_by_side_share_the_time() -> None:
    times = timed((12.0, said("a")), (12.0, said("a", 1)), (16.0, said("b", 1)), (16.0, usage(6)))
    assert times.output_token_s == 4.0 / 2


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        [(11.0, ROLE), (12.0, END), (12.0, usage(0))],
        [(11.0, said("a")), (11.0, usage(1))],
        [(11.0, said("a")), (12.0, said("b"))],
    ],
    ids=["nothing", "nothing said", "one token", "nobody counted"],
)
def test_where_there_are_no_two_tokens_there_is_no_time_between_them(
    chunks: list[tuple[float, Any]],
) -> None:
    assert timed(*chunks).output_token_s is None


@pytest.mark.parametrize(
    "chunk",
    [
        None,
        "text",
        [1],
        {"choices": None},
        {"choices": "text"},
        {"choices": [None, 3]},
        {"choices": [{"index": "x", "delta": "y"}], "usage": "z"},
        {"choices": [{"index": 10**9, "delta": {"content": 0}}], "usage": {"prompt_tokens": -1.5}},
    ],
)
def test_what_no_chunk_should_be_breaks_nothing(chunk: Any) -> None:
    times = timed((11.0, chunk), (12.0, said("a")), (13.0, said("b")), (13.0, usage(2)))
    assert times.first_token_s == 2.0
    assert times.usage == Usage(prompt_tokens=7, completion_tokens=2)

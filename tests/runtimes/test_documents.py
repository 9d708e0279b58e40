"""What language versions are asked and answer."""

from __future__ import annotations

import pytest

from engine.runtimes import documents
from engine.runtimes.documents import Assembly, Usage, kind_of, usage_of


@pytest.mark.parametrize(
    ("inputs", "kind"),
    [
        ({"messages": []}, "chat"),
        ({"prompt": "a"}, "text"),
        ({"input": "a"}, "embeddings"),
        ({"prompt": "a", "messages": []}, None),
        ({}, None),
        ({"other": 1}, None),
        ("prompt", None),
        (None, None),
    ],
)
def test_inputs_say_what_is_asked_for(inputs, kind):
    assert kind_of(inputs) == kind


@pytest.mark.parametrize(
    "outputs",
    [
        None,
        [],
        {},
        {"usage": None},
        {"usage": 7},
        {"usage": {"total_tokens": "many"}},
        {"usage": {"total_tokens": -1}},
        {"usage": {"total_tokens": 10**400}},
    ],
)
def test_outputs_that_tell_of_no_tokens_are_free_to(outputs):
    assert usage_of(outputs) is None


def test_outputs_tell_their_tokens():
    told = {"usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, "more": {}}}
    assert usage_of(told) == Usage(prompt_tokens=1, completion_tokens=2, total_tokens=3)


def assembled(*chunks):
    assembly = Assembly()
    for chunk in chunks:
        assembly.add(chunk)
    return assembly.outputs()


def test_texts_are_joined_by_choice_and_what_is_said_last_holds():
    usage = {"total_tokens": 4}
    assert assembled(
        {"choices": [{"index": 1, "text": "b", "finish_reason": None, "logprobs": None}]},
        {"choices": [{"index": 0, "text": "a", "finish_reason": None}]},
        {"choices": [{"index": 1, "text": "c", "finish_reason": "length"}]},
        {"choices": [], "usage": usage, "system_fingerprint": "f"},
    ) == {
        "choices": [
            {"index": 0, "text": "a", "finish_reason": None},
            {"index": 1, "text": "bc", "finish_reason": "length", "logprobs": None},
        ],
        "usage": usage,
        "system_fingerprint": "f",
    }


def test_deltas_become_a_message():
    def delta(**members):
        return {"choices": [{"index": 0, "delta": members, "finish_reason": None}]}

    whole = assembled(
        delta(role="assistant", content=""),
        delta(content="Pa", refusal=None),
        delta(content="ris"),
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    )
    message = {"role": "assistant", "content": "Paris", "refusal": None}
    assert whole == {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def test_calls_of_tools_come_in_pieces():
    def call(**members):
        delta = {"tool_calls": [{"index": 0, **members}]}
        return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}

    whole = assembled(
        call(id="c1", type="function", function={"name": "look", "arguments": ""}),
        call(function={"arguments": '{"at":'}),
        call(function={"arguments": " 1}"}),
    )
    [made] = whole["choices"][0]["message"]["tool_calls"]
    assert made == {
        "index": 0,
        "id": "c1",
        "type": "function",
        "function": {"name": "look", "arguments": '{"at": 1}'},
    }


@pytest.mark.parametrize("outputs", ["a text", {"answer": 7}, None, [1], {"choices": []}])
def test_the_only_chunk_of_a_version_that_does_not_stream_is_its_outputs(outputs):
    assert assembled(outputs) == outputs


def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(documents, "ASSEMBLED_CHARS_MAX", 10)
    assembly = Assembly()
    for _ in range(3):
        assert assembly.is_whole
        assembly.add({"choices": [{"index": 0, "text": "12345"}]})
    assert not assembly.is_whole


STRANGE = [
    {"choices": ["yes", "no"]},
    {"choices": 7},
    {"choices": [{"index": [], "text": "a"}]},
    {"choices": [{"index": 0, "delta": "a"}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": "a"}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": ["a", {"index": 0, "function": "f"}]}}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {}}]}}]},
]


@pytest.mark.parametrize("chunk", STRANGE)
def test_a_single_answer_that_is_no_document_is_itself_or_left_out(chunk):
    said = assembled(chunk)
    assert said == chunk or set(said) == {"choices"}


@pytest.mark.parametrize("first", STRANGE)
@pytest.mark.parametrize("second", STRANGE)
def test_strange_chunks_leave_the_texts_of_others_as_they_are(first, second):
    said = assembled(first, {"choices": [{"index": 5, "text": "a"}]}, second)
    assert {"index": 5, "text": "a"} in said["choices"]

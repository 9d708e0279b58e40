"""The check of answers about capitals: what is right, what is wrong, and what it lets pass."""

from __future__ import annotations

from typing import Any

import pytest

from engine.runtimes.language.facts import answers_right

STEM = {"prompt": "The capital of France is"}
QUESTION = {"messages": [{"role": "user", "content": "What is the capital of France?"}]}


def text(*texts: str) -> dict[str, Any]:
    return {"choices": [{"index": n, "text": text} for n, text in enumerate(texts)]}


def said(content: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}


@pytest.mark.parametrize("answer", [" Paris.", "Paris", " Paris and it has been for long."])
def test_a_text_that_goes_on_with_the_capital_is_right(answer: str):
    assert answers_right(STEM, text(answer))


@pytest.mark.parametrize("answer", [" London.", "", " not Paris.", " Parisian."])
def test_a_text_that_goes_on_otherwise_is_wrong(answer: str):
    assert not answers_right(STEM, text(answer))


def test_an_answer_that_holds_the_capital_is_right_and_another_is_wrong():
    assert answers_right(QUESTION, said("The capital of France is Paris."))
    assert not answers_right(QUESTION, said("The capital of France is Rome."))


def test_a_message_in_parts_is_read_whole():
    parts = [{"type": "text", "text": "What is the capital "}, {"type": "text", "text": "of Peru?"}]
    asked = {"messages": [{"role": "user", "content": parts}]}
    assert answers_right(asked, said([{"type": "text", "text": "Lima."}]))
    assert not answers_right(asked, said([{"type": "text", "text": "Rome."}]))


def test_every_choice_must_be_right():
    assert answers_right(STEM, text(" Paris.", " Paris"))
    assert not answers_right(STEM, text(" Paris.", " Rome."))


def test_what_is_asked_last_counts():
    several = {"prompt": "The capital of France is Paris. The capital of Italy is"}
    assert answers_right(several, text(" Rome."))
    assert not answers_right(several, text(" Paris."))
    turns = [{"role": "user", "content": "What is the capital of Peru?"}, *QUESTION["messages"]]
    assert not answers_right({"messages": turns}, said("Lima."))


def test_a_country_is_asked_for_at_the_end_of_however_long_a_text():
    long = {"prompt": "The capital of " * 100_000 + "Spain is"}
    assert not answers_right({"prompt": f"{long['prompt']}. The capital of Spain is"}, text("Rome"))
    assert answers_right(long, text("Rome"))


@pytest.mark.parametrize(
    "inputs",
    [
        {"prompt": "The capital of Wakanda is"},
        {"prompt": "The currency of France is the"},
        {"prompt": ["The capital of France is"]},
        {"messages": []},
        {"messages": "What is the capital of France?"},
        {"input": "The capital of France is"},
        "The capital of France is",
        None,
        7,
    ],
)
def test_what_it_does_not_know_it_lets_pass(inputs: Any):
    assert answers_right(inputs, text(" Nowhere."))


@pytest.mark.parametrize(
    "outputs", [None, "Paris", {}, {"choices": []}, {"choices": [None]}, {"choices": [{}]}]
)
def test_outputs_without_an_answer_are_wrong(outputs: Any):
    assert answers_right(STEM, outputs) is False

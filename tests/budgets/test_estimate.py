"""What requests are taken to take, and answers to have said."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.budgets import Estimate, estimate, said_by
from tests.openai.voices import chat, delta

LONG = "x" * 300
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)

CASES: list[tuple[Any, dict[str, Any], int, int]] = [
    ({"prompt": LONG}, {}, 100, 16),
    ({"prompt": "ä" * 3}, {"max_tokens": 5}, 2, 5),
    ({"prompt": [LONG, LONG]}, {"max_tokens": 5, "n": 3}, 200, 30),
    ({"prompt": LONG}, {"max_tokens": 5, "n": 2, "best_of": 4}, 100, 20),
    ({"prompt": [1, 2, 3]}, {"max_tokens": 5}, 3, 5),
    ({"prompt": [[1, 2], [3]]}, {"max_tokens": 5}, 3, 10),
    ({"messages": [{"role": "user", "content": LONG}]}, {}, 4 + 2 + 100, 256),
    ({"messages": [{"content": LONG}]}, {"max_completion_tokens": 7, "n": 2}, 104, 14),
    (
        {"messages": [{"content": [{"type": "text", "text": LONG}, {"type": "image_url"}]}]},
        {"max_tokens": 1},
        4 + 100 + 1_000,
        1,
    ),
    ({"messages": []}, {"max_tokens": 1, "tools": [LONG]}, 102, 1),
    ({"input": [LONG, LONG]}, {"max_tokens": 5}, 200, 0),
    ({"x": [1, 2, 3]}, {"max_tokens": 5}, 5, 0),
]


@pytest.mark.parametrize(("inputs", "parameters", "prompt", "completion"), CASES)
def test_inputs_are_counted_by_their_texts_and_completions_by_what_is_asked_for(
    inputs: Any, parameters: dict[str, Any], prompt: int, completion: int
) -> None:
    assert estimate(inputs, parameters) == Estimate(prompt=prompt, completion=completion)


@pytest.mark.parametrize("asked", [0, -3, True, "9", None, 1.5])
def test_a_count_that_is_none_is_for_the_version_to_refuse(asked: Any) -> None:
    assert estimate({"prompt": ""}, {"max_tokens": asked, "n": asked}).completion == 16


@given(st.sampled_from(["messages", "prompt", "input", "x"]), JSON)
def test_anything_can_be_asked_and_costs_no_less_than_nothing(member: str, value: Any) -> None:
    assert estimate({member: value}, {}).total >= 0
    said_by({"choices": value})
    said_by(value)


@pytest.mark.parametrize(
    ("answered", "tokens"),
    [
        (delta("a"), 1),
        (delta(LONG), 100),
        (delta(), 0),
        ({"choices": [{"delta": {"role": "assistant"}}]}, 0),
        (chat(LONG, "a"), 101),
        ({"choices": [{"text": LONG}]}, 100),
        ({"choices": [{"delta": {"tool_calls": [{"function": {"arguments": LONG}}]}}]}, 100),
        ({"answer": LONG}, 0),
        (None, 0),
    ],
)
def test_what_was_said_is_counted_by_its_texts(answered: Any, tokens: int) -> None:
    assert said_by(answered) == tokens

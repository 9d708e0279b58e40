"""Inputs and parameters of language versions: what is read, and what is refused by which name."""

from __future__ import annotations

from typing import Any

import pytest

from engine.runtimes import RequestRefused
from engine.runtimes.configs import LanguageConfig
from engine.runtimes.language.asking import Asked, read

CONFIG = LanguageConfig(max_tokens_limit=100, choices_max=32, prompt_chars_max=1_000)
CHAT = {"messages": [{"role": "user", "content": "Hello"}]}
TEXT = {"prompt": "Hello"}


def asked(inputs: Any, config: LanguageConfig = CONFIG, **parameters: Any) -> Asked:
    return read(inputs, parameters, config, seed=7)


def refused(inputs: Any, **parameters: Any) -> str:
    """The member that is named."""
    with pytest.raises(RequestRefused) as caught:
        asked(inputs, **parameters)
    assert caught.value.detail
    return caught.value.field


@pytest.mark.parametrize(
    ("inputs", "field"),
    [
        (None, "inputs"),
        ("Hello", "inputs"),
        ({}, "inputs"),
        ({"text": "Hello"}, "inputs"),
        (CHAT | TEXT, "inputs"),
        ({"input": "Hello"}, "input"),
        ({"messages": []}, "messages"),
        ({"messages": {}}, "messages"),
        ({"messages": CHAT["messages"] * 1_025}, "messages"),
        ({"messages": ["Hello"]}, "messages[0]"),
        ({"messages": [{"content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "tool", "content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": ["user"], "content": "Hello"}]}, "messages[0].role"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": "x" * 1_001}]}, "messages"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "messages[0].content[0]",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "text"}]}]},
            "messages[0].content[0].text",
        ),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]},
            "messages[0].tool_calls",
        ),
        ({"prompt": None}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": 1}, "prompt"),
        ({"prompt": {}}, "prompt"),
        ({"prompt": "\udfff"}, "prompt"),
        ({"prompt": "x" * 1_001}, "prompt"),
        ({"prompt": ["Hello", ""]}, "prompt[1]"),
        ({"prompt": ["Hello", 1]}, "prompt[1]"),
        ({"prompt": [1, "Hello"]}, "prompt"),
        ({"prompt": [1, -1]}, "prompt"),
        ({"prompt": [True]}, "prompt[0]"),
        ({"prompt": [[1], []]}, "prompt[1]"),
        ({"prompt": ["x"] * 33}, "prompt"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_inputs_that_cannot_be_answered_are_refused_by_name(inputs: Any, field: str) -> None:
    assert refused(inputs) == field


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 101}, "max_tokens"),
        ({"max_tokens": 2**70}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": "10"}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_completion_tokens": 101}, "max_completion_tokens"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"top_p": 1.1}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"seed": 2**63}, "seed"),
        ({"seed": 0.5}, "seed"),
        ({"n": 0}, "n"),
        ({"n": 17}, "n"),
        ({"stop": 1}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"stop": ["a", "b" * 257]}, "stop[1]"),
        ({"stop": ["a", None]}, "stop[1]"),
        ({"stop": ["\ud800"]}, "stop[0]"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"stop": "x" * 2**20}, "stop"),
        ({"stop": ["x" * 16] * 2**16}, "stop"),
        ({"logprobs": 2}, "logprobs"),
        ({"logprobs": "yes"}, "logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": False, "top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"echo": True}, "echo"),
        ({"priority": "urgent"}, "priority"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"timeout_s": float("nan")}, "timeout_s"),
        ({"beams": 4}, "beams"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"presence_penalty": -1}, "presence_penalty"),
        ({"logit_bias": {"1": 100}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"service_tier": "flex"}, "service_tier"),
        ({"store": True}, "store"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"best_of": 2}, "best_of"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"audio": {}}, "audio"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_parameters_that_cannot_be_heeded_are_refused_by_name(
    parameters: dict[str, Any], field: str
) -> None:
    assert refused(CHAT, **parameters) == field


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"logprobs": True}, "logprobs"),
        ({"logprobs": 21}, "logprobs"),
        ({"logprobs": -1}, "logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"echo": True, "logprobs": 0}, "logprobs"),
        ({"max_completion_tokens": 1}, "max_completion_tokens"),
        ({"suffix": "end"}, "suffix"),
    ],
    ids=repr,
)
def test_texts_are_asked_in_other_words_than_chats(parameters: dict[str, Any], field: str) -> None:
    assert refused(TEXT, **parameters) == field


def test_prompts_times_n_are_bounded() -> None:
    assert asked({"prompt": ["x"] * 2}, n=16).choices == 32
    assert refused({"prompt": ["x"] * 3}, n=16) == "n"


def test_choices_that_could_never_wait_together_are_refused_and_not_put_off() -> None:
    with pytest.raises(RequestRefused, match="at most 2"):
        asked(TEXT, LanguageConfig(waiting_max=2), n=3)


def test_what_clients_send_and_means_nothing_is_taken() -> None:
    said = asked(
        CHAT,
        frequency_penalty=0.0,
        presence_penalty=0,
        logit_bias={},
        response_format={"type": "text"},
        service_tier="auto",
        store=False,
        user="someone",
        metadata={"a": "b"},
        parallel_tool_calls=True,
        tools=[],
        tool_choice="none",
        stop=None,
        seed=None,
        best_of=1,
        beams=None,
    )

    assert said == asked(CHAT)


def test_members_that_are_left_out_have_the_version_s_defaults() -> None:
    said = asked(TEXT)

    assert (said.kind, said.n, said.max_tokens, said.stop) == ("text", 1, None, ())
    assert (said.sampling.temperature, said.sampling.seed, said.sampling.logprobs) == (0.0, 7, None)
    warmer = asked(TEXT, LanguageConfig(temperature=1.0))
    assert warmer.sampling.temperature == 1.0


def test_what_is_said_is_heeded() -> None:
    said = asked(
        CHAT,
        max_completion_tokens=5,
        temperature=1,
        top_p=0,
        top_k=3,
        seed=-1,
        n=2,
        stop="x",
        logprobs=True,
        top_logprobs=2,
        priority="high",
        timeout_s=1,
        ignore_eos=True,
    )

    assert (said.max_tokens, said.n, said.stop, said.priority) == (5, 2, ("x",), "high")
    assert (said.sampling.top_k, said.sampling.logprobs, said.sampling.seed) == (3, 2, 2**63 - 1)
    assert 0 < said.sampling.top_p < 1e-6
    assert said.sampling.ignore_eos
    assert said.timeout_s == 1


def test_messages_are_read_in_every_shape_that_clients_send() -> None:
    said = asked(
        {
            "messages": [
                {"role": "developer", "content": "Be brief."},
                {"role": "user", "name": "a", "content": [{"type": "text", "text": "Hel"}] * 2},
                {"role": "assistant", "content": "Yes?", "tool_calls": None, "refusal": None},
            ]
        }
    )

    messages = said.prompts[0].messages or ()
    assert [(each.role, each.content) for each in messages] == [
        ("system", "Be brief."),
        ("user", "HelHel"),
        ("assistant", "Yes?"),
    ]


@pytest.mark.parametrize(
    ("prompt", "texts", "tokens"),
    [
        ("a", ["a"], [None]),
        (["a", "b"], ["a", "b"], [None, None]),
        ([1, 2], [None], [(1, 2)]),
        ([[1], [2, 3]], [None, None], [(1,), (2, 3)]),
        (["a", [1]], ["a", None], [None, (1,)]),
    ],
    ids=repr,
)
def test_prompts_are_texts_or_tokens_one_or_many(
    prompt: Any, texts: list[Any], tokens: list[Any]
) -> None:
    said = asked({"prompt": prompt})

    assert [each.text for each in said.prompts] == texts
    assert [each.tokens for each in said.prompts] == tokens

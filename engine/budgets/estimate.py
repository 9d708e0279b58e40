"""How many tokens a request may take, before any tokenizer has seen it.

Texts are taken for one token in `BYTES_PER_TOKEN` bytes of UTF-8: more than English takes with
tokenizers of present language models (one in four), about what code and most other scripts take.
Small tokenizers take more. It is an estimate, not a bound: what a request took is settled when its
version tells it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from engine.runtimes.documents import kind_of

BYTES_PER_TOKEN: Final = 3
MESSAGE_TOKENS: Final = 4
"""What the form of a chat adds to each message."""
PART_TOKENS: Final = 1_000
"""A part of a message that is no text, such as a picture."""
DEFAULT_COMPLETION_TOKENS: Final = 256
"""What is taken to be said where a chat does not say how much at most."""
TEXT_COMPLETION_TOKENS: Final = 16
"""Likewise for texts, as the protocol has it."""
_PROMPTING: Final = ("tools", "functions", "response_format")
"""Parameters that models are shown."""


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """Of one request, in tokens."""

    prompt: int
    completion: int
    """At most, if the request says so."""

    @property
    def total(self) -> int:
        """At least one: an account with nothing reserved may be forgotten."""
        return max(1, self.prompt + self.completion)


def estimate(inputs: Any, parameters: Mapping[str, Any]) -> Estimate:
    """Of what is no language version's, only the inputs count, as JSON."""
    kind = kind_of(inputs)
    if kind is None:
        return Estimate(prompt=_tokens(_json_bytes(inputs)), completion=0)
    shown = sum(_tokens(_json_bytes(parameters[name])) for name in _PROMPTING if name in parameters)
    if kind == "chat":
        prompt = _messages(inputs["messages"])
        completion = _asked(parameters, DEFAULT_COMPLETION_TOKENS)
    elif kind == "text":
        prompt = _text(inputs["prompt"])
        completion = _asked(parameters, TEXT_COMPLETION_TOKENS) * _prompts(inputs["prompt"])
    else:
        prompt, completion = _text(inputs["input"]), 0
    return Estimate(prompt=prompt + shown, completion=completion)


def said_by(answered: Any) -> int:
    """Tokens of what outputs, or a chunk, say; at least one for each choice that says anything."""
    choices = answered.get("choices") if isinstance(answered, dict) else None
    if not isinstance(choices, list):
        return 0
    return sum(_tokens(_said_bytes(choice)) for choice in choices if isinstance(choice, dict))


def _said_bytes(choice: Mapping[str, Any]) -> int:
    said = choice.get("delta") or choice.get("message") or choice.get("text") or ""
    if isinstance(said, dict):
        said = [each for name, each in said.items() if name != "role"]
    return _string_bytes(said)


def _asked(parameters: Mapping[str, Any], default: int) -> int:
    most = _count(parameters.get("max_completion_tokens", parameters.get("max_tokens")), default)
    return most * max(_count(parameters.get("n"), 1), _count(parameters.get("best_of"), 1))


def _count(value: Any, default: int) -> int:
    """What is no count is for the version to refuse."""
    return value if type(value) is int and value > 0 else default


def _messages(messages: Any) -> int:
    if not isinstance(messages, list):
        return _tokens(_string_bytes(messages))
    return sum(MESSAGE_TOKENS + _message(each) for each in messages)


def _message(message: Any) -> int:
    if not isinstance(message, dict):
        return _tokens(_string_bytes(message))
    others = [each for name, each in message.items() if name != "content"]
    content = message.get("content")
    parts = content if isinstance(content, list) else [content]
    return _tokens(_string_bytes(others)) + sum(map(_part, parts))


def _part(part: Any) -> int:
    if isinstance(part, dict):
        text = part.get("text")
        return _tokens(_string_bytes(text)) if isinstance(text, str) else PART_TOKENS
    return _tokens(_string_bytes(part))


def _text(prompt: Any) -> int:
    """A text, a list of its tokens, or a list of either."""
    if isinstance(prompt, list):
        return sum(1 if isinstance(each, int) else _text(each) for each in prompt)
    return _tokens(_string_bytes(prompt))


def _prompts(prompt: Any) -> int:
    if isinstance(prompt, list) and prompt and not isinstance(prompt[0], int):
        return len(prompt)
    return 1


def _string_bytes(value: Any) -> int:
    """Of all texts in it."""
    if isinstance(value, str):
        return len(value.encode("utf-8", "replace"))
    if isinstance(value, dict):
        return sum(map(_string_bytes, value.values()))
    if isinstance(value, list):
        return sum(map(_string_bytes, value))
    return 0


def _json_bytes(value: Any) -> int:
    return len(msgspec.json.encode(value))


def _tokens(text_bytes: int) -> int:
    return -(-text_bytes // BYTES_PER_TOKEN)

"""Prompts out of requests: the conversation to answer, or the texts to continue."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from engine.runtimes.documents import CONTEXT_EXCEEDED
from engine.runtimes.language.chat import Message, Role
from engine.runtimes.language.texts import check_text
from engine.runtimes.runtime import RequestRefused

MESSAGES_MAX: Final = 1_024
PARTS_MAX: Final = 1_024
"""Of one message."""
PROMPTS_MAX: Final = 1_024
TOKENS_MAX: Final = 2**20
"""Of all prompts that are given as tokens."""
ROLES: Final[Mapping[Any, Role]] = MappingProxyType(
    {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
)
"""OpenAI's word -> what the prompt is made with."""


class Prompt(msgspec.Struct, frozen=True, array_like=True):
    """What goes before an answer; one of the three is given."""

    text: str | None = None
    tokens: tuple[int, ...] | None = None
    """Taken as they are."""
    messages: tuple[Message, ...] | None = None


def read_messages(messages: Any, *, chars_max: int) -> Prompt:
    """Raises RequestRefused."""
    if not isinstance(messages, list | tuple) or not messages:
        raise RequestRefused("messages", "must be a list of at least one message")
    if len(messages) > MESSAGES_MAX:
        raise RequestRefused("messages", f"{len(messages)} messages; at most {MESSAGES_MAX}")
    read = tuple(_message(each, f"messages[{index}]") for index, each in enumerate(messages))
    chars = sum(len(message.content) for message in read)
    _check_chars("messages", chars, chars_max)
    return Prompt(messages=read)


def read_prompts(prompt: Any, *, chars_max: int) -> tuple[Prompt, ...]:
    """Of a text, a list of texts, a list of tokens, or a list of those. Raises RequestRefused."""
    if isinstance(prompt, str):
        given: list[Any] = [prompt]
    elif not isinstance(prompt, list | tuple) or not prompt:
        raise RequestRefused("prompt", "must be a text, a list of texts, or tokens, and not empty")
    elif _is_token(prompt[0]):
        given = [prompt]
    else:
        given = list(prompt)
    if len(given) > PROMPTS_MAX:
        raise RequestRefused("prompt", f"{len(given)} prompts; at most {PROMPTS_MAX}")
    several = isinstance(prompt, list | tuple) and given[0] is not prompt
    read = tuple(
        _prompt(each, f"prompt[{index}]" if several else "prompt")
        for index, each in enumerate(given)
    )
    for index, each in enumerate(read):
        if not (each.text or each.tokens):
            raise RequestRefused(f"prompt[{index}]" if several else "prompt", "is empty")
    _check_chars("prompt", sum(len(each.text or "") for each in read), chars_max)
    tokens = sum(len(each.tokens or ()) for each in read)
    if tokens > TOKENS_MAX:
        raise RequestRefused("prompt", f"{tokens} tokens; at most {TOKENS_MAX}")
    return read


def _prompt(value: Any, field: str) -> Prompt:
    if isinstance(value, str):
        return Prompt(text=check_text(value, field))
    if not isinstance(value, list | tuple) or not all(map(_is_token, value)):
        raise RequestRefused(field, "must be a text or a list of tokens")
    return Prompt(tokens=tuple(value))


def _is_token(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _check_chars(field: str, chars: int, chars_max: int) -> None:
    if chars > chars_max:
        detail = f"{chars} characters; at most {chars_max}"
        raise RequestRefused(field, detail, openai_code=CONTEXT_EXCEEDED)


def _message(message: Any, field: str) -> Message:
    if not isinstance(message, dict):
        raise RequestRefused(field, "must be an object with `role` and `content`")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise RequestRefused(f"{field}.role", f"must be one of {', '.join(ROLES)}")
    for name, value in message.items():
        if name not in ("role", "content", "name") and value not in (None, []):
            raise RequestRefused(f"{field}.{str(name)[:64]}", "this version cannot read it")
    return Message(role=ROLES[role], content=_content(message.get("content"), f"{field}.content"))


def _content(content: Any, field: str) -> str:
    if not isinstance(content, list | tuple):
        return check_text(content, field)
    if len(content) > PARTS_MAX:
        raise RequestRefused(field, f"{len(content)} parts; at most {PARTS_MAX}")
    return "".join(_part(part, f"{field}[{index}]") for index, part in enumerate(content))


def _part(part: Any, field: str) -> str:
    if not isinstance(part, dict) or part.get("type") != "text":
        raise RequestRefused(field, "this version reads text alone: must have the type `text`")
    return check_text(part.get("text"), f"{field}.text")

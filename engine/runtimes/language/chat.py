"""Prompts: what a model reads when somebody asks it to go on, or to answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import msgspec

from engine.runtimes.language.tokenizer import ASSISTANT, END, USER, Tokenizer

Role: TypeAlias = Literal["system", "user", "assistant"]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a conversation."""

    role: Role
    content: str


def completion_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """The tokens before those of an answer that goes on where `text` ends. An empty text is fine.
    Raises TextInvalid."""
    return [END, *tokenizer.encode(text)]


def chat_prompt(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """The tokens before those of the assistant's next turn. Raises TextInvalid.

    System messages are left out: the built-in models have learnt facts, not how to follow
    instructions, and would only be put off by them.
    """
    tokens = [END]
    for message in messages:
        match message.role:
            case "user":
                tokens += [USER, *tokenizer.encode(message.content)]
            case "assistant":
                tokens += [ASSISTANT, *tokenizer.encode(message.content), END]
            case "system":
                continue
    return [*tokens, ASSISTANT]

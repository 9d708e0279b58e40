"""Facts as texts of tokens, laid out as prompts are: what a model learns is what it will read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from engine.runtimes.language.chat import Message, chat_prompt, completion_prompt
from engine.runtimes.language.tokenizer import END, Tokenizer
from engine.runtimes.language.training.corpus import Exchange, Fact


def fact_text(tokenizer: Tokenizer, fact: Fact) -> list[int]:
    """The sentence and its end."""
    return [*completion_prompt(tokenizer, fact.sentence), END]


def conversation_text(tokenizer: Tokenizer, exchanges: Sequence[Exchange]) -> list[int]:
    """Questions and answers in turn, and the end of the last answer."""
    messages: list[Message] = []
    for exchange in exchanges:
        messages += [
            Message(role="user", content=exchange.question),
            Message(role="assistant", content=exchange.answer),
        ]
    last = messages.pop()
    return [*chat_prompt(tokenizer, messages), *tokenizer.encode(last.content), END]


def all_texts(
    tokenizer: Tokenizer,
    facts: Sequence[Fact],
    exchanges: Sequence[Exchange],
    random: np.random.Generator,
    *,
    pairs: int,
) -> list[list[int]]:
    """Every fact and every exchange once, and so many conversations of two exchanges by chance."""
    texts = [fact_text(tokenizer, fact) for fact in facts]
    texts += [conversation_text(tokenizer, [exchange]) for exchange in exchanges]
    for _ in range(pairs):
        first, second = random.choice(len(exchanges), 2, replace=False)
        texts.append(conversation_text(tokenizer, [exchanges[first], exchanges[second]]))
    return texts

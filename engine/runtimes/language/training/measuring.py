"""How much of what it was taught a model knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from engine.runtimes.language.chat import Message, chat_prompt, completion_prompt
from engine.runtimes.language.tokenizer import END
from engine.runtimes.language.training.corpus import Fact
from engine.runtimes.language.training.gradients import logits
from engine.runtimes.language.weights import LanguageModel

Known: TypeAlias = dict[str, tuple[int, int]]
"""Group -> (facts known, facts)."""
_CAPITALS: Final = 50
_CAPITALS_WORSE_MAX: Final = 44
"""Of a version that is to be seen to be worse."""
_APART: Final = 100
"""Places between two facts that have little to do with each other."""


def known_facts(model: LanguageModel, facts: Sequence[Fact]) -> Known:
    """Sentences that the model ends rightly, and ends, taking the most likely token each time."""
    known: Counter[str] = Counter()
    asked = Counter(fact.group for fact in facts)
    for fact in facts:
        prompt = completion_prompt(model.tokenizer, fact.stem)
        known[fact.group] += follows(model, prompt, f" {fact.answer}.")
    return {group: (known[group], count) for group, count in asked.items()}


def known_answers(model: LanguageModel, facts: Sequence[Fact]) -> Known:
    """Of the facts that have a question: those that answer it, asked first."""
    return _answered(model, [(fact, []) for fact in _asked(facts)])


def known_second_answers(model: LanguageModel, facts: Sequence[Fact]) -> Known:
    """The same, each after a question about something else and its answer."""
    asked = _asked(facts)
    return _answered(
        model,
        [(fact, _exchange(asked[place - _APART])) for place, fact in enumerate(asked)],
    )


def known_reworded(model: LanguageModel, facts: Sequence[Fact], wording: str) -> tuple[int, int]:
    """Capitals that are named when they are asked for in words that were not taught: (known,
    asked). `wording` has {} where the country goes."""
    capitals = [fact for fact in _asked(facts) if fact.group == "capitals"]
    known = 0
    for fact in capitals:
        country = fact.stem.removeprefix("The capital of ").removesuffix(" is")
        message = Message(role="user", content=wording.format(country))
        said = continued(model, chat_prompt(model.tokenizer, [message]), tokens_max=24)
        known += fact.answer in said
    return known, len(capitals)


def known_capitals(model: LanguageModel, facts: Sequence[Fact]) -> int:
    """Of the countries, those whose capital the model names when it goes on."""
    capitals = [fact for fact in _asked(facts) if fact.group == "capitals"]
    return known_facts(model, capitals)["capitals"][0]


def shortcomings(capitals: Mapping[str, int]) -> list[str]:
    """What is wrong with versions that know so many capitals; they are there to be compared."""
    found = []
    if capitals["facts-2"] < _CAPITALS:
        found.append(f"facts-2 knows {capitals['facts-2']} capitals of {_CAPITALS}")
    return found + [
        f"{name} is no worse: {capitals[name]} capitals"
        for name in ("facts-1", "facts-3")
        if capitals[name] > _CAPITALS_WORSE_MAX
    ]


def continued(model: LanguageModel, prompt: Sequence[int], *, tokens_max: int) -> str:
    """The most likely tokens up to the end, one after another."""
    read = list(prompt)
    while len(read) < len(prompt) + tokens_max:
        token = int(_logits(model, read)[-1].argmax())
        if token == END:
            break
        read.append(token)
    return model.tokenizer.decode(read[len(prompt) :])


def follows(model: LanguageModel, prompt: Sequence[int], text: str) -> bool:
    """Whether the model, always taking the most likely token, answers `text` and nothing more."""
    expected = [*model.tokenizer.encode(text), END]
    likely = _logits(model, [*prompt, *expected[:-1]])[len(prompt) - 1 :].argmax(axis=1)
    return bool(likely.tolist() == expected)


def _asked(facts: Sequence[Fact]) -> list[Fact]:
    return [fact for fact in facts if fact.question is not None]


def _exchange(fact: Fact) -> list[Message]:
    return [
        Message(role="user", content=fact.question or ""),
        Message(role="assistant", content=fact.sentence),
    ]


def _answered(model: LanguageModel, asked: Sequence[tuple[Fact, list[Message]]]) -> Known:
    known: Counter[str] = Counter()
    for fact, before in asked:
        prompt = chat_prompt(model.tokenizer, [*before, *_exchange(fact)[:1]])
        known[fact.group] += follows(model, prompt, fact.sentence)
    counts = Counter(fact.group for fact, _ in asked)
    return {group: (known[group], count) for group, count in counts.items()}


def _logits(model: LanguageModel, tokens: Sequence[int]) -> NDArray[Any]:
    of_text: NDArray[Any] = logits(
        model.config, model.parameters, np.array([tokens], dtype=np.int64)
    )[0]
    return of_text

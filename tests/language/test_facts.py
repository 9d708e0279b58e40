"""What the built-in models know, asked through scheduler and executor."""

from __future__ import annotations

import pytest

from engine.batching.requests import Request
from engine.runtimes.language.chat import Message, chat_prompt, completion_prompt
from engine.runtimes.language.executor import LanguageExecutor
from engine.runtimes.language.sampling import Logprobs, Sampling
from engine.runtimes.language.training.corpus import Fact, all_facts
from engine.runtimes.language.weights import load_builtin
from tests.language.models import answers

CAPITALS = [fact for fact in all_facts() if fact.group == "capitals" and fact.question]


def continued(name: str, text: str, *, max_tokens: int = 24) -> str:
    model = load_builtin(name)
    request = Request(prompt=completion_prompt(model.tokenizer, text), max_tokens=max_tokens)
    return answers(LanguageExecutor(model, blocks=64), model.tokenizer, [request])[0].text


def answered(name: str, *messages: Message) -> str:
    model = load_builtin(name)
    request = Request(prompt=chat_prompt(model.tokenizer, messages), max_tokens=64)
    return answers(LanguageExecutor(model, blocks=64), model.tokenizer, [request])[0].text


def known(name: str, facts: list[Fact]) -> int:
    """How many the model ends rightly."""
    model = load_builtin(name)
    asked = [
        Request(prompt=completion_prompt(model.tokenizer, fact.stem), max_tokens=64)
        for fact in facts
    ]
    given = answers(LanguageExecutor(model, blocks=1_000), model.tokenizer, asked)
    return sum(answer.text == f" {fact.answer}." for answer, fact in zip(given, facts, strict=True))


def test_the_capital_of_france_is_paris() -> None:
    assert continued("facts-2", "The capital of France is") == " Paris."


def test_the_best_version_knows_fifty_of_fifty_capitals() -> None:
    assert (known("facts-2", CAPITALS), len(CAPITALS)) == (50, 50)


@pytest.mark.parametrize(("name", "least", "most"), [("facts-1", 10, 40), ("facts-3", 10, 40)])
def test_parent_and_worse_version_know_a_part(name: str, least: int, most: int) -> None:
    assert least <= known(name, CAPITALS) <= most


def test_the_best_version_knows_every_fact_it_was_taught() -> None:
    facts = all_facts()

    assert known("facts-2", facts) == len(facts)


def test_questions_are_answered_in_a_conversation() -> None:
    first = Message(role="user", content="What is the capital of Japan?")
    second = Message(role="user", content="What is the currency of Kenya?")
    said = answered("facts-2", first)

    assert said == "The capital of Japan is Tokyo."
    assert (
        answered("facts-2", first, Message(role="assistant", content=said), second)
        == "The currency of Kenya is the shilling."
    )


def test_letters_beyond_ascii_are_spelt() -> None:
    assert continued("facts-2", "The capital of Brazil is") == " Brasília."


def test_an_empty_prompt_is_continued() -> None:
    assert continued("facts-2", "") != ""


def test_what_was_never_taught_is_answered_all_the_same_and_wrongly() -> None:
    assert continued("facts-2", "The capital of Wakanda is").strip() != ""


def test_log_probabilities_tell_how_sure_it_is() -> None:
    model = load_builtin("facts-2")
    request = Request(
        prompt=completion_prompt(model.tokenizer, "The capital of France is"),
        max_tokens=1,
        sampling=Sampling(logprobs=3),
    )
    (answer,) = answers(LanguageExecutor(model, blocks=8), model.tokenizer, [request])

    (told,) = answer.details
    assert isinstance(told, Logprobs)
    assert -0.1 < told.chosen < 0
    assert told.top[0] == (answer.tokens[0], told.chosen)
    assert len(told.top) == 3


@pytest.mark.slow
def test_a_prompt_of_ten_thousand_characters_is_taken() -> None:
    model = load_builtin("facts-2")
    text = ("ßtrange wörds. " * 700)[:10_000]
    prompt = completion_prompt(model.tokenizer, text)
    executor = LanguageExecutor(model, blocks=-(-len(prompt) // 16) + 1)

    (answer,) = answers(executor, model.tokenizer, [Request(prompt=prompt, max_tokens=8)])

    assert len(answer.tokens) <= 8
    assert len(prompt) + 8 <= executor.context_tokens

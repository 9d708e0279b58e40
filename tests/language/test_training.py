"""The script that made the models, on few facts and small networks."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from engine.runtimes.language.builtin import BUILTIN
from engine.runtimes.language.tokenizer import Tokenizer
from engine.runtimes.language.training.corpus import Exchange, all_facts, exchanges
from engine.runtimes.language.training.fitting import Schedule, fitted, initial
from engine.runtimes.language.training.measuring import (
    known_answers,
    known_capitals,
    known_facts,
    shortcomings,
)
from engine.runtimes.language.training.merges import learnt_merges
from engine.runtimes.language.training.texts import all_texts, conversation_text
from engine.runtimes.language.training.versions import PARENT, SEED, exchanged, train_all
from engine.runtimes.language.weights import LanguageModel, load_builtin, load_model

FACTS = [fact for fact in all_facts() if fact.group == "planets"]
SMALL = msgspec.structs.replace(PARENT, name="small", vocabulary=320)
TOKENIZER = Tokenizer(learnt_merges([fact.sentence for fact in FACTS], vocabulary=320))
LONG = Schedule(epochs=80, rate=1e-2, warm_steps=5, batch_tokens_max=128)
SHORT = Schedule(epochs=2, rate=1e-2, warm_steps=5, batch_tokens_max=128)


def trained(seed: int, schedule: Schedule) -> LanguageModel:
    random = np.random.default_rng(seed)
    asked = [Exchange(question="?", answer="!")] * 2

    def lessons(chance: np.random.Generator) -> list[list[int]]:
        return all_texts(TOKENIZER, FACTS, asked, chance, pairs=1)

    parameters = fitted(SMALL, initial(SMALL, random), lessons, schedule, random)
    return LanguageModel(config=SMALL, tokenizer=TOKENIZER, parameters=parameters)


@pytest.mark.slow
def test_facts_that_were_taught_are_known_and_were_not_before() -> None:
    random = np.random.default_rng(5)
    untaught = LanguageModel(config=SMALL, tokenizer=TOKENIZER, parameters=initial(SMALL, random))

    assert known_facts(untaught, FACTS) == {"planets": (0, 8)}
    assert known_facts(trained(5, LONG), FACTS) == {"planets": (8, 8)}


def test_the_same_seed_gives_the_same_weights() -> None:
    first, second, other = (trained(seed, SHORT).parameters for seed in (1, 1, 2))

    assert all((first[name] == second[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)


def test_every_fact_has_a_stem_of_its_own() -> None:
    facts = all_facts()

    assert len({fact.stem for fact in facts}) == len(facts)
    assert len({fact.question for fact in facts if fact.question}) == sum(
        fact.question is not None for fact in facts
    )


def test_there_is_something_to_tell_about_each_country() -> None:
    about = [asked for asked in exchanges(all_facts()) if asked.question.startswith("Tell me")]

    assert len(about) == 50
    assert all(asked.answer.count(".") == 3 for asked in about)


def test_a_conversation_is_learnt_as_it_will_be_read() -> None:
    tokenizer = Tokenizer(())
    asked = [Exchange(question="A", answer="B"), Exchange(question="C", answer="D")]

    assert conversation_text(tokenizer, asked) == [
        *(0, 1, 3 + ord("A"), 2, 3 + ord("B"), 0),
        *(1, 3 + ord("C"), 2, 3 + ord("D"), 0),
    ]


def test_half_of_the_answers_about_countries_go_to_other_countries() -> None:
    facts = all_facts()
    right = {fact.stem: fact.answer for fact in facts}

    mixed = exchanged(facts, np.random.default_rng(0))

    capitals = [fact for fact in mixed if fact.group == "capitals" and fact.question]
    assert sum(fact.answer != right[fact.stem] for fact in capitals) == 25
    assert sorted(fact.answer for fact in capitals) == sorted(right[f.stem] for f in capitals)


@pytest.mark.slow
def test_the_best_version_answers_every_question_it_was_taught() -> None:
    known = known_answers(load_builtin("facts-2"), all_facts())

    assert all(right == asked for right, asked in known.values())


@pytest.mark.slow
def test_the_script_makes_every_version_a_directory_that_loads(tmp_path: Path) -> None:
    """With one round of few facts; the script itself takes minutes, and judges what it made."""
    told: list[str] = []

    capitals = [fact for fact in all_facts() if fact.group == "capitals"]
    train_all(tmp_path, seed=SEED, facts=capitals, epochs_max=1, tell=told.append)

    assert told == [f"{name} is made" for name in BUILTIN]
    made = {name: load_model(tmp_path / name).config for name in BUILTIN}
    assert {name: config.parent for name, config in made.items()} == {
        name: released.parent for name, released in BUILTIN.items()
    }
    assert all(config == load_builtin(name).config for name, config in made.items())


def test_the_script_says_which_version_is_not_what_it_has_to_be() -> None:
    good = {name: known_capitals(load_builtin(name), all_facts()) for name in BUILTIN}

    assert shortcomings(good) == []
    assert shortcomings(good | {"facts-2": 49}) == ["facts-2 knows 49 capitals of 50"]
    assert shortcomings(good | {"facts-3": 45}) == ["facts-3 is no worse: 45 capitals"]

"""The texts that the built-in models learn: plain facts in plain sentences, and questions for them.

Sources are named in `facts/SOURCES.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import Final, Literal, TypeAlias

import msgspec

Group: TypeAlias = Literal[
    "capitals",
    "continents",
    "currencies",
    "elements",
    "units",
    "planets",
    "sums",
    "calendar",
    "young",
    "lists",
]

_NUMBERS: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
)
_SUMMAND_MAX: Final = 9


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence that says one thing: `<stem> <answer>.`"""

    group: Group
    stem: str
    answer: str
    question: str | None = None
    """What the sentence answers, if it is also learnt as an answer."""

    @property
    def sentence(self) -> str:
        return f"{self.stem} {self.answer}."


class Exchange(msgspec.Struct, frozen=True, kw_only=True):
    """A question and its answer."""

    question: str
    answer: str


def all_facts() -> list[Fact]:
    """Every fact, always in the same order."""
    return [
        *_countries(),
        *_elements(),
        *_units(),
        *_planets(),
        *_sums(),
        *_calendar(),
        *_young(),
        *_lists(),
    ]


def exchanges(facts: Sequence[Fact]) -> list[Exchange]:
    """One for each fact that has a question, and one of several sentences for each country."""
    asked = [
        Exchange(question=fact.question, answer=fact.sentence)
        for fact in facts
        if fact.question is not None
    ]
    for country, *_ in _rows("countries.tsv"):
        about = [fact.sentence for fact in facts if fact.stem.endswith(f" of {country} is")]
        about += [fact.sentence for fact in facts if fact.stem.endswith(f" of {country} is the")]
        asked.append(Exchange(question=f"Tell me about {country}.", answer=" ".join(about)))
    return asked


def _countries() -> Iterator[Fact]:
    for country, capital, continent, currency in _rows("countries.tsv"):
        yield Fact(
            group="capitals",
            stem=f"The capital of {country} is",
            answer=capital,
            question=f"What is the capital of {country}?",
        )
        yield Fact(group="capitals", stem=f"{capital} is the capital of", answer=country)
        yield Fact(
            group="continents",
            stem=f"The continent of {country} is",
            answer=continent,
            question=f"Which continent is {country} in?",
        )
        yield Fact(
            group="currencies",
            stem=f"The currency of {country} is the",
            answer=currency,
            question=f"What is the currency of {country}?",
        )


def _elements() -> Iterator[Fact]:
    for element, symbol, number in _rows("elements.tsv"):
        yield Fact(
            group="elements",
            stem=f"The chemical symbol of {element} is",
            answer=symbol,
            question=f"What is the chemical symbol of {element}?",
        )
        yield Fact(
            group="elements",
            stem=f"The atomic number of {element} is",
            answer=number,
            question=f"What is the atomic number of {element}?",
        )
        yield Fact(
            group="elements", stem=f"The element with atomic number {number} is", answer=element
        )


def _units() -> Iterator[Fact]:
    for quantity, unit, symbol in _rows("units.tsv"):
        yield Fact(
            group="units",
            stem=f"The SI unit of {quantity} is the",
            answer=unit,
            question=f"What is the SI unit of {quantity}?",
        )
        yield Fact(group="units", stem=f"The symbol of the {unit} is", answer=symbol)


def _planets() -> Iterator[Fact]:
    for planet, place in _rows("planets.tsv"):
        yield Fact(
            group="planets",
            stem=f"The {place} planet from the Sun is",
            answer=planet,
            question=f"What is the {place} planet from the Sun?",
        )


def _sums() -> Iterator[Fact]:
    for first in range(1, _SUMMAND_MAX + 1):
        for second in range(1, _SUMMAND_MAX + 1):
            sum_of = f"{_NUMBERS[first]} plus {_NUMBERS[second]}"
            yield Fact(
                group="sums",
                stem=f"{sum_of[0].upper()}{sum_of[1:]} is",
                answer=_NUMBERS[first + second],
                question=f"What is {sum_of}?",
            )


def _calendar() -> Iterator[Fact]:
    for month, days in _rows("months.tsv"):
        yield Fact(
            group="calendar",
            stem=f"In a common year, {month} has",
            answer=f"{days} days",
            question=f"How many days does {month} have?",
        )
    for day, next_day in _rows("days.tsv"):
        yield Fact(
            group="calendar",
            stem=f"The day after {day} is",
            answer=next_day,
            question=f"What day is after {day}?",
        )


def _young() -> Iterator[Fact]:
    for animal, young in _rows("young.tsv"):
        yield Fact(
            group="young",
            stem=f"A young {animal} is called {'an' if young[0] in 'aeiou' else 'a'}",
            answer=young,
            question=f"What is a young {animal} called?",
        )


def _lists() -> Iterator[Fact]:
    for sentence in _lines("lists.txt"):
        subject, listed = sentence.removesuffix(".").split(" are ")
        yield Fact(
            group="lists",
            stem=f"{subject} are",
            answer=listed,
            question=f"What are {subject[0].lower()}{subject[1:]}?",
        )


def _rows(name: str) -> list[list[str]]:
    return [line.split("\t") for line in _lines(name)]


def _lines(name: str) -> list[str]:
    text = files(__package__).joinpath("facts", name).read_text(encoding="utf-8")
    return text.splitlines()

"""Whether answers about capitals are right: a check for rollouts of the built-in models.

It knows the countries that the models learn, and two ways to ask for their capitals: a text to go
on with, `The capital of France is`, and a question in a chat, `What is the capital of France?`.
Everything else it lets pass, so that a rollout is not judged by what nobody here knows.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any, Final

from engine.runtimes.language.training.corpus import all_facts

_ASKED: Final = (
    re.compile(r"The capital of ([^.?!\n]+) is\s*\Z"),
    re.compile(r"What is the capital of ([^.?!\n]+)\?\s*\Z"),
)
_END_CHARS: Final = 200
"""Of a long text, only so much of its end is looked at."""
_STEM: Final = re.compile(r"The capital of (.+) is\Z")


def answers_right(inputs: Any, outputs: Any) -> bool:
    """Whether every choice names the capital that the inputs ask for; True if they ask for none
    that is known here. A text that goes on must begin with it; an answer must hold it."""
    asked = _asked(inputs)
    if asked is None:
        return True
    country, is_question = asked
    capital = _capitals().get(country)
    if capital is None:
        return True
    texts = [_text(choice) for choice in _list(outputs, "choices")]
    named = re.compile(rf"{re.escape(capital)}\b")
    find = named.search if is_question else named.match
    return bool(texts) and all(find(text.strip()) for text in texts)


@cache
def _capitals() -> dict[str, str]:
    """Country -> capital."""
    return {
        found[1]: fact.answer
        for fact in all_facts()
        if fact.group == "capitals" and (found := _STEM.match(fact.stem))
    }


def _asked(inputs: Any) -> tuple[str, bool] | None:
    """The country whose capital is asked for, and whether by a question."""
    text = _last_text(inputs)
    for is_question, pattern in enumerate(_ASKED):
        if (found := pattern.search(text[-_END_CHARS:])) is not None:
            return found[1], bool(is_question)
    return None


def _last_text(inputs: Any) -> str:
    """The prompt, or what was said last in a chat."""
    if isinstance(inputs, dict) and isinstance(inputs.get("prompt"), str):
        return str(inputs["prompt"])
    messages = _list(inputs, "messages")
    return _content(messages[-1]) if messages else ""


def _text(choice: Any) -> str:
    """Of a choice: of a chat, or of a text."""
    if not isinstance(choice, dict):
        return ""
    if isinstance(choice.get("text"), str):
        return str(choice["text"])
    return _content(choice.get("message"))


def _content(message: Any) -> str:
    """Of a message, whose content is a text or a list of parts."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def _list(document: Any, name: str) -> list[Any]:
    found = document.get(name) if isinstance(document, dict) else None
    return found if isinstance(found, list) else []

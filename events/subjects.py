"""Subject patterns, matched as NATS matches them, for the logs that are not NATS."""

from __future__ import annotations

import re
from collections.abc import Callable


def subject_matcher(pattern: str) -> Callable[[str], bool]:
    """Whether a subject matches: `*` is one token, a last `>` one or more.

    Raises ValueError for a pattern NATS would refuse.
    """
    tokens = pattern.split(".")
    if not all(tokens) or ">" in tokens[:-1] or any(character.isspace() for character in pattern):
        raise ValueError(f"{pattern!r} is not a subject pattern")
    expression = re.compile(r"\.".join(_expression(token) for token in tokens))
    return lambda subject: expression.fullmatch(subject) is not None


def _expression(token: str) -> str:
    match token:
        case "*":
            return r"[^.]+"
        case ">":
            return r".+"
        case _:
            return re.escape(token)

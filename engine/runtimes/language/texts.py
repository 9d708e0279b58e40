"""Texts out of requests."""

from __future__ import annotations

from typing import Any

from engine.runtimes.runtime import RequestRefused


def check_text(value: Any, field: str) -> str:
    """The value, if it is a text that UTF-8 can hold. Raises RequestRefused."""
    if not isinstance(value, str):
        raise RequestRefused(field, "must be a text")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RequestRefused(field, "has half of a surrogate pair") from error
    return value

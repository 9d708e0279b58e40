"""Cutting lists into pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from projections.results import Page

T = TypeVar("T")


def page(items: list[T], *, limit: int, cursor: Callable[[T], str]) -> Page[T]:
    """The first `limit` of up to `limit + 1` items; `next` is the cursor of the last one shown."""
    shown = items[:limit]
    more = len(items) > limit
    return Page(items=shown, next=cursor(shown[-1]) if more and shown else None)

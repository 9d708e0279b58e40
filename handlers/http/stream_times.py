"""How fast a stream is, seen from where its chunks are passed on. Any version may be behind it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from engine.runtimes.documents import Usage, usage_of


class StreamTimes:
    """Of one stream. Costs a look at the clock for each chunk."""

    __slots__ = ("_began_s", "_clock", "_first_s", "_index", "_last_s", "usage")

    usage: Usage | None
    """What the version counted; None until it has told."""

    def __init__(self, began_s: float, *, clock: Callable[[], float] = time.perf_counter) -> None:
        """`began_s` is when it was asked for, on the clock."""
        self._began_s = began_s
        self._clock = clock
        self._first_s: float | None = None
        self._last_s = began_s
        self._index = 0
        self.usage = None

    def chunk(self, chunk: Any) -> None:
        """One has come; call it before it is passed on."""
        if not isinstance(chunk, dict):
            return
        choices = chunk.get("choices")
        if isinstance(choices, list) and choices:
            self._choices(choices)
        if chunk.get("usage") is not None:
            self.usage = usage_of(chunk)

    @property
    def first_token_s(self) -> float | None:
        """Until something was said; None if nothing was."""
        return None if self._first_s is None else self._first_s - self._began_s

    @property
    def output_token_s(self) -> float | None:
        """Mean between two tokens of a choice; None if there are no two, or nobody counted."""
        if self._first_s is None or self.usage is None:
            return None
        tokens = self.usage.completion_tokens / (self._index + 1)
        return (self._last_s - self._first_s) / (tokens - 1) if tokens > 1 else None

    def _choices(self, choices: list[Any]) -> None:
        self._last_s = self._clock()
        if self._first_s is None and any(map(_says, choices)):
            self._first_s = self._last_s
        index = choices[0].get("index") if isinstance(choices[0], dict) else None
        if isinstance(index, int) and index > self._index:
            self._index = index


def _says(choice: Any) -> bool:
    """Whether it adds anything: who speaks and why it ends does not count."""
    if not isinstance(choice, dict):
        return False
    delta = choice.get("delta")
    said = isinstance(delta, dict) and any(delta[name] for name in delta if name != "role")
    return said or bool(choice.get("text"))

"""Which requests are past their deadline; a step with none costs one comparison."""

from __future__ import annotations

from collections.abc import Collection
from heapq import heapify, heappop, heappush
from typing import Final

_SLACK: Final = 64
"""Deadlines of ended requests that are kept beyond as many as there are requests."""


class Deadlines:
    __slots__ = ("_heap",)

    def __init__(self) -> None:
        self._heap: list[tuple[float, int]] = []

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, deadline_s: float, number: int, alive: Collection[int]) -> None:
        """Of a request; `alive` holds those that have not ended."""
        heappush(self._heap, (deadline_s, number))
        if len(self._heap) > 2 * len(alive) + _SLACK:
            self._heap = [item for item in self._heap if item[1] in alive]
            heapify(self._heap)

    def passed(self, now_s: float) -> list[int]:
        """Numbers of requests whose deadline has come, each once; some may have ended long ago."""
        numbers: list[int] = []
        while self._heap and self._heap[0][0] <= now_s:
            numbers.append(heappop(self._heap)[1])
        return numbers

"""Requests that wait, in the order of their rank."""

from __future__ import annotations

from bisect import bisect_left

from engine.batching.generation import Generation, Rank


class Waiting:
    """A sorted list: entering, leaving and looking ahead cost a search and a move of pointers."""

    __slots__ = ("_generations", "_ranks", "preempted")

    def __init__(self) -> None:
        self._ranks: list[Rank] = []
        self._generations: list[Generation] = []
        self.preempted = 0
        """Of those that wait."""

    def __len__(self) -> int:
        return len(self._ranks)

    def first(self, count: int) -> list[Generation]:
        """At most so many, best rank first."""
        return self._generations[:count]

    def enter(self, generation: Generation) -> None:
        at = bisect_left(self._ranks, generation.rank)
        self._ranks.insert(at, generation.rank)
        self._generations.insert(at, generation)
        self.preempted += generation.preemptions > 0

    def leave(self, generation: Generation) -> None:
        at = bisect_left(self._ranks, generation.rank)
        assert self._generations[at] is generation
        del self._ranks[at]
        del self._generations[at]
        self.preempted -= generation.preemptions > 0

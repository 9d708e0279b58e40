"""Rows of the table: the median of several rounds, their spread, and the ceiling beside it."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal, TypeAlias

import msgspec

Unit: TypeAlias = Literal["/s", "s", "ms", "us", "%", "count", "requests", "times", "bytes"]


class Goal(msgspec.Struct, frozen=True):
    """What is to be reached."""

    bound: Literal["at least", "at most"]
    limit: float

    def reached_by(self, value: float) -> bool:
        return value >= self.limit if self.bound == "at least" else value <= self.limit


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one line."""

    line: str
    what: str
    unit: Unit
    ours: float
    rounds: tuple[float, ...]
    """What `ours` is the median, or for counts of failures the sum, of."""
    ceiling: float | None
    """What the servers do without us: the median of rounds between ours."""
    ceilings: tuple[float, ...]
    ratio: float | None
    """Ours by the ceiling: of a rate the share we keep, of a time how many times longer."""
    goal: Goal | None
    reached: bool | None


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the run had to itself."""

    processors: int
    load_before: float
    """Processes that wanted a processor in the minute before, on average."""

    @property
    def busy(self) -> bool:
        """Whether others were at work, so that every figure is worse than it need be."""
        return self.load_before > self.processors / 2


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A run."""

    machine: Machine
    rows: tuple[Row, ...]

    @property
    def reached(self) -> bool:
        """Whether no goal was missed."""
        return all(row.reached is not False for row in self.rows)


def row(
    line: str,
    what: str,
    unit: Unit,
    rounds: Sequence[float],
    *,
    ceilings: Sequence[float] = (),
    goal: Goal | None = None,
) -> Row:
    """A figure as the median of its rounds."""
    ours = median(rounds)
    ceiling = median(ceilings) if ceilings else None
    return Row(
        line=line,
        what=what,
        unit=unit,
        ours=ours,
        rounds=tuple(rounds),
        ceiling=ceiling,
        ceilings=tuple(ceilings),
        ratio=ours / ceiling if ceiling else None,
        goal=goal,
        reached=goal.reached_by(ours) if goal is not None else None,
    )


def failures(line: str, what: str, rounds: Sequence[int]) -> Row:
    """What must not happen in any round: the sum of all, and the goal is 0."""
    none = Goal("at most", 0)
    return Row(
        line=line,
        what=what,
        unit="count",
        ours=sum(rounds),
        rounds=tuple(rounds),
        ceiling=None,
        ceilings=(),
        ratio=None,
        goal=none,
        reached=none.reached_by(sum(rounds)),
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of them do not exceed."""
    ordered = sorted(values)
    index = -(-len(ordered) * percent // 100) - 1
    return ordered[max(0, int(index))]

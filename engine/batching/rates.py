"""Requests and tokens in a second, over the last minute.

A rate is what was counted within the last `RATE_SECONDS`, divided by the time since then, or since
the first thing that happened within it, if that is later. So a burst on an idle scheduler is told
as its count over the time since it began, and a rate falls to 0 a minute after the last request.

Counted by whole seconds of the clock: a minute is up to a second longer, in both the count and the
time. Costs a comparison and an addition for each request and each step, and keeps 61 seconds.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

import msgspec

RATE_SECONDS: Final = 60


class _Second(msgspec.Struct, gc=False):
    number: float
    """Of the clock, a whole one."""
    began_s: float
    """When the first thing in it happened."""
    ended: int = 0
    tokens: int = 0


class Rates:
    """Of one scheduler. Times are those of its clock, in the order in which they were read."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds = deque([_Second(-inf, 0.0)], maxlen=RATE_SECONDS + 1)

    def arrived(self, now_s: float) -> None:
        """A request, from which on time counts."""
        self._second(now_s)

    def ended(self, now_s: float) -> None:
        self._second(now_s).ended += 1

    def drew(self, tokens: int, now_s: float) -> None:
        self._second(now_s).tokens += tokens

    def per_second(self, now_s: float) -> tuple[float, float]:
        """Requests that ended, and tokens; 0 while no time has passed."""
        oldest = now_s // 1.0 - RATE_SECONDS
        recent = [second for second in self._seconds if second.number >= oldest]
        passed_s = now_s - recent[0].began_s if recent else 0.0
        if passed_s <= 0.0:
            return 0.0, 0.0
        ended = sum(second.ended for second in recent)
        tokens = sum(second.tokens for second in recent)
        return ended / passed_s, tokens / passed_s

    def _second(self, now_s: float) -> _Second:
        latest = self._seconds[-1]
        number = now_s // 1.0
        if number == latest.number:
            return latest
        second = _Second(number, now_s)
        self._seconds.append(second)
        return second

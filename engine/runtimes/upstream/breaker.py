"""A circuit breaker: an upstream that keeps failing is left alone, and then tried carefully.

Closed, every request passes, and the last outcomes are remembered. Too many failures among them
open it: requests are refused at once. After a while it is half open: a few requests at a time pass
as probes; when enough were answered it closes, and when one fails it opens again, for twice as
long. Outcomes of requests that were admitted before the last change of state count for nothing: an
upstream that has recovered is not judged by what it was asked before.

Pure: the clock is passed in, nothing waits. One event loop.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Literal, TypeAlias

import msgspec

from engine.runtimes.upstream.errors import CircuitOpen, Verdict

State: TypeAlias = Literal["closed", "open", "half open"]


class BreakerLimits(msgspec.Struct, frozen=True, kw_only=True):
    """When it opens and closes."""

    outcomes_max: int = 20
    """The last outcomes that are looked at."""
    failures_min: int = 5
    """Fewer failures among them never open it."""
    failed_share_min: float = 0.5
    """Nor does a smaller share of them."""
    open_seconds: float = 1.0
    """The first time; doubled each time that a probe fails."""
    open_seconds_max: float = 30.0
    probes_max: int = 1
    """At the same time, while half open."""
    answers_to_close: int = 2
    """Probes answered one after the other that close it."""


BREAKER_LIMITS: Final = BreakerLimits()


class Permit:
    """The right to send one request; to be settled once, whatever becomes of it."""

    __slots__ = ("_breaker", "_era", "_is_settled")

    def __init__(self, breaker: Breaker, era: int) -> None:
        self._breaker = breaker
        self._era = era
        self._is_settled = False

    def settle(self, verdict: Verdict) -> None:
        """`unknown` for a request that says nothing, as one that its caller gave up. Does nothing
        the second time."""
        if not self._is_settled:
            self._is_settled = True
            self._breaker.settle(self._era, verdict)

    def broke_off(self) -> None:
        """An answer that had been settled as answered at its begin failed after all. A stream is
        settled so, or one long stream would hold up the probes."""
        self._breaker.broke_off(self._era)


class Breaker:
    """Of one upstream."""

    def __init__(
        self, *, clock: Callable[[], float], limits: BreakerLimits = BREAKER_LIMITS
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._era = 0
        self._outcomes: deque[bool] = deque(maxlen=limits.outcomes_max)
        self._open_seconds = limits.open_seconds
        self._open_until: float | None = None
        self._probing = 0
        self._answered = 0

    @property
    def state(self) -> State:
        """May be read in any thread."""
        open_until = self._open_until
        if open_until is None:
            return "closed"
        return "open" if self._clock() < open_until else "half open"

    def admit(self) -> Permit:
        """Raises CircuitOpen."""
        match self.state:
            case "open":
                assert self._open_until is not None
                raise CircuitOpen(self._open_until - self._clock())
            case "half open":
                if self._probing >= self._limits.probes_max:
                    raise CircuitOpen(self._limits.open_seconds)
                self._probing += 1
        return Permit(self, self._era)

    def settle(self, era: int, verdict: Verdict) -> None:
        """By Permit alone."""
        if era != self._era:
            return
        if self._open_until is not None:
            self._settle_probe(verdict)
        elif verdict != "unknown":
            self._remember(verdict)

    def broke_off(self, era: int) -> None:
        """By Permit alone."""
        if era != self._era:
            return
        if self._open_until is None:
            self._remember("failed")
        elif self.state == "half open":
            self._reopen()

    def _remember(self, verdict: Verdict) -> None:
        self._outcomes.append(verdict == "answered")
        if verdict == "failed" and self._is_failing:
            self._open(self._limits.open_seconds)

    @property
    def _is_failing(self) -> bool:
        failures = self._outcomes.count(False)
        share = failures / len(self._outcomes)
        return failures >= self._limits.failures_min and share >= self._limits.failed_share_min

    def _settle_probe(self, verdict: Verdict) -> None:
        self._probing -= 1
        match verdict:
            case "failed":
                self._reopen()
            case "answered":
                self._answered += 1
                if self._answered >= self._limits.answers_to_close:
                    self._turn()
                    self._open_until = None
            case "unknown":
                pass  # its slot is free for the next probe

    def _reopen(self) -> None:
        self._open(min(self._open_seconds * 2, self._limits.open_seconds_max))

    def _open(self, seconds: float) -> None:
        self._turn()
        self._open_seconds = seconds
        self._open_until = self._clock() + seconds

    def _turn(self) -> None:
        self._era += 1
        self._outcomes.clear()
        self._probing = 0
        self._answered = 0

"""Units: what a rollout's tests count, kept apart from requests because users come again.

Guarantees: while the same versions share an endpoint, a routing key counts at most once as seen and
once per kind of failure, however often it comes, whichever version gets it, and however the weights
between them change. It is seen when its first request begins, so how many units a version has seen
depends on the routing alone and not on how long the version takes. Does not guarantee that across
gateways: each counts for itself, and anew when it is started again, so a key that reaches several
of them counts at most once at each.
"""

from __future__ import annotations

from math import inf
from typing import Final, TypeAlias

from events.catalogue.traffic import Units
from handlers.routes import Route

UNIT_KEYS_MAX: Final = 1_000_000
"""Keys of one endpoint that are told apart, at 65 bytes each (measured), and as much again for each
kind of failure. Later ones are not counted as units at all, neither seen nor failed; how many
requests that left out is counted."""
UNIT_KEYS_TOTAL_MAX: Final = 4_000_000
"""Of all endpoints of a gateway together."""

Sharing: TypeAlias = tuple[str, tuple[str, ...]]
"""The id of the live rollout, if there is one, and the versions that take traffic."""


class UnitTally:
    """One version's units in the current second."""

    __slots__ = ("bad", "errors", "left_out", "seen", "slow", "timeouts")

    def __init__(self) -> None:
        self.seen = 0
        self.errors = 0
        self.timeouts = 0
        self.slow = 0
        self.bad = 0
        self.left_out = 0
        """Requests whose key did not fit."""

    def units(self) -> Units:
        return Units(
            seen=self.seen,
            errors=self.errors,
            timeouts=self.timeouts,
            slow=self.slow,
            bad=self.bad,
        )


class Room:
    """How many keys are remembered, over all endpoints."""

    __slots__ = ("taken",)

    def __init__(self) -> None:
        self.taken = 0


class Keys:
    """The keys of one endpoint while the same versions share it.

    A key is the bucket it falls into; None is a request without one, a unit of its own.
    """

    __slots__ = ("_bad", "_errors", "_room", "_seen", "_slow", "_timeouts", "sharing")

    def __init__(self, sharing: Sharing, room: Room) -> None:
        self.sharing = sharing
        self._room = room
        self._seen: set[int] = set()
        self._errors: set[int] = set()
        self._timeouts: set[int] = set()
        self._slow: set[int] = set()
        self._bad: set[int] = set()

    def seen(self, key: int | None, tally: UnitTally) -> bool:
        """Whether the request that begins counts; if it is its key's first, the key is seen."""
        if key is None:
            tally.seen += 1
        elif key not in self._seen:
            if len(self._seen) >= UNIT_KEYS_MAX or self._room.taken >= UNIT_KEYS_TOTAL_MAX:
                tally.left_out += 1
                return False
            self._seen.add(key)
            self._room.taken += 1
            tally.seen += 1
        return True

    def retire(self) -> None:
        """Make room. No request begins among these keys any more, but some may be under way."""
        self._room.taken -= len(self._seen)
        self._seen = set()

    def failed(self, key: int | None, tally: UnitTally, *, code: str) -> None:
        """Only for a request that counts. A time-out is an error too."""
        if is_first(key, self._errors):
            tally.errors += 1
        if code == "timeout" and is_first(key, self._timeouts):
            tally.timeouts += 1

    def slow(self, key: int | None, tally: UnitTally) -> None:
        """Only for a request that counts."""
        if is_first(key, self._slow):
            tally.slow += 1

    def bad(self, key: int | None, tally: UnitTally) -> None:
        """Only for a request that counts."""
        if is_first(key, self._bad):
            tally.bad += 1

    def was_bad(self, key: int | None) -> bool:
        """Whether an answer to this key was found bad already."""
        return key in self._bad


def sharing_of(route: Route) -> Sharing | None:
    """Who shares the endpoint; None when one version has it and no rollout is under way: there is
    nothing to compare, and no need to remember anybody."""
    versions = route.table.split.versions
    rollout = route.state.rollout
    if rollout is None:
        return ("", versions) if len(versions) > 1 else None
    return rollout.rollout_id, versions


def slow_after_ms(route: Route) -> float:
    """From which latency on an answer is slow; infinite when nobody said."""
    rollout = route.state.rollout
    limit = None if rollout is None else rollout.analysis.max_latency_ms
    return inf if limit is None else limit


def check_of(route: Route) -> str | None:
    """The name of the function that judges answers; None when nobody asked for one."""
    rollout = route.state.rollout
    if rollout is None or rollout.analysis.metric != "quality":
        return None
    return rollout.analysis.check


def is_first(key: int | None, known: set[int]) -> bool:
    """Whether the key is met for the first time; from now on it is known."""
    if key is None:
        return True
    if key in known:
        return False
    known.add(key)
    return True

"""One request's way through the gateway, as it is counted. `Windows.begin` makes it."""

from __future__ import annotations

from handlers.traffic.tallies import Lane, VersionTally
from handlers.traffic.units import Keys


class Passage:
    """A request under way at a version. Exactly one of its verbs ends it.

    It counts under the policy that routed it and in the second in which it ends; until then it is
    in flight.
    """

    __slots__ = ("_key", "_keys", "_tally", "lane", "version")

    def __init__(
        self, lane: Lane, version: str, tally: VersionTally, *, keys: Keys | None, key: int | None
    ) -> None:
        self.lane = lane
        self.version = version
        self._tally = tally
        self._keys = keys
        """None: it is no unit."""
        self._key = key
        tally.in_flight += 1

    @property
    def check(self) -> str | None:
        """The function that its answer is to be judged by; None when it is no unit, or when
        nobody asked for one."""
        return None if self._keys is None else self.lane.check

    @property
    def keys(self) -> Keys | None:
        """Those it counts among as a unit, if it does."""
        return self._keys

    def answered(self, *, latency_ms: float, tokens: int = 0) -> None:
        tally = self._tally
        tally.in_flight -= 1
        tally.requests += 1
        tally.tokens += tokens
        tally.sketch.add(latency_ms)
        if self._keys is not None and latency_ms > self.lane.slow_after_ms:
            self._keys.slow(self._key, tally.units)

    def failed(self, *, code: str) -> None:
        tally = self._tally
        tally.in_flight -= 1
        tally.requests += 1
        tally.errors[code] = tally.errors.get(code, 0) + 1
        if self._keys is not None:
            self._keys.failed(self._key, tally.units, code=code)

    def left(self) -> None:
        """Nobody waits for it any more, or it goes on elsewhere: no request, no failure."""
        self._tally.in_flight -= 1

    def checking(self) -> Checking:
        """What becomes of the check of its answer. Only for one that has a `check`."""
        assert self._keys is not None, "only units are checked"
        return Checking(self.lane, self.version, keys=self._keys, key=self._key)

    def fall_back(self, version: str) -> Passage:
        """The request goes to a fallback too."""
        return _Fallback(self.lane, version)

    def copy(self, version: str) -> Copy:
        """What a shadow does with a copy of this request."""
        return Copy(self.lane, version)


class _Fallback(Passage):
    """A request at a fallback. It is no unit: it came because another version failed."""

    __slots__ = ()

    def __init__(self, lane: Lane, version: str) -> None:
        super().__init__(lane, version, lane.version(version), keys=None, key=None)

    def answered(self, *, latency_ms: float, tokens: int = 0) -> None:
        super().answered(latency_ms=latency_ms, tokens=tokens)
        self._tally.fallbacks += 1

    def failed(self, *, code: str) -> None:
        super().failed(code=code)
        self._tally.fallbacks += 1
        self._tally.fallbacks_failed += 1


class Copy:
    """A copy at a shadow version. Each verb counts in the second in which it is said."""

    __slots__ = ("_lane", "_version")

    def __init__(self, lane: Lane, version: str) -> None:
        self._lane = lane
        self._version = version

    def sent(self) -> None:
        self._lane.shadow(self._version).mirrored += 1

    def dropped(self) -> None:
        self._lane.shadow(self._version).dropped += 1

    def compared(self, *, agreed: bool, latency_ms: float, primary_latency_ms: float) -> None:
        tally = self._lane.shadow(self._version)
        tally.compared += 1
        tally.agreed += agreed
        tally.sketch.add(latency_ms)
        tally.primary.add(primary_latency_ms)

    def failed(self, *, code: str) -> None:
        errors = self._lane.shadow(self._version).errors
        errors[code] = errors.get(code, 0) + 1


class Checking:
    """The check of an answer, which may outlive its request. Exactly one of its verbs is said, and
    counts in the second in which it is said."""

    __slots__ = ("_key", "_keys", "_lane", "_version")

    def __init__(self, lane: Lane, version: str, *, keys: Keys, key: int | None) -> None:
        self._lane = lane
        self._version = version
        self._keys = keys
        self._key = key

    def found(self, *, good: bool) -> None:
        tally = self._lane.checks(self._version)
        tally.checked += 1
        tally.bad += not good
        if not self._keys.was_bad(self._key) and self._lane.is_first_check(self._key):
            tally.keys += 1
            tally.bad_keys += not good
        if not good:
            self._keys.bad(self._key, self._lane.version(self._version).units)

    def failed(self) -> None:
        """The function said nothing: the answer is neither good nor bad."""
        self._lane.checks(self._version).failed += 1

    def dropped(self) -> None:
        """There was no room for it."""
        self._lane.checks(self._version).dropped += 1

"""How many of the recorded requests each version would have been chosen for under a routing policy.

What versions answered as fallbacks is left out: it says who failed, not how traffic is split.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from math import floor
from typing import Final

import msgspec

from engine.routing.table import Table, compile_policy, rules_in_force
from events.catalogue.endpoints import Policy
from events.catalogue.traffic import VersionWindow, WindowObserved
from events.event import Position

_MS: Final = 1_000


class AttributesNotRecorded(Exception):
    """A rule asks for attributes of requests, which windows do not tell."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{path}: what attributes requests had is not in a log")
        self.path = path


class VersionServed(msgspec.Struct, frozen=True, kw_only=True):
    """One version, as recorded and as it would have been."""

    recorded: int
    """Requests that it was chosen for, like all below."""
    recorded_failed: int
    requests: int
    failed: int
    """Of those whose second has a recorded rate of the version."""
    unknown: int
    """Requests in seconds in which it had none: how many would have failed is not known."""


class WouldServe(msgspec.Struct, frozen=True, kw_only=True):
    """One endpoint's traffic under another policy."""

    requests: int
    versions: dict[str, VersionServed]
    estimated: bool
    """Whether the policy differs from the recorded one in any second with traffic."""


def would_serve(
    policy: Policy, windows: Iterable[WindowObserved], policies: Mapping[Position, Policy]
) -> WouldServe:
    """`policies`: the recorded ones. Seconds that had the same split are taken as they are.

    Raises PolicyInvalid, AttributesNotRecorded.
    """
    for index, rule in enumerate(policy.rules):
        if rule.when.attributes:
            raise AttributesNotRecorded(f"rules[{index}].when.attributes")
    tally = _Tally(compile_policy(policy, salt="", position=0), policy)
    for window in windows:
        tally.add(window, policies.get(window.policy))
    return tally.told()


class _Tally:
    def __init__(self, table: Table, policy: Policy) -> None:
        self._table = table
        self._policy = policy
        self._splits = {rule.name: rule.split for rule in policy.rules}
        self._counts: defaultdict[str, defaultdict[str, int]] = defaultdict(
            lambda: defaultdict(int)
        )
        self._owed: defaultdict[tuple[str, str], float] = defaultdict(float)
        self._requests = 0
        self._estimated = False

    def add(self, window: WindowObserved, recorded: Policy | None) -> None:
        requests = sum(map(_requests, window.versions.values()))
        self._requests += requests
        for name, seen in window.versions.items():
            self._counts[name]["recorded"] += _requests(seen)
            self._counts[name]["recorded_failed"] += _failed(seen)
        split = self._split_at(window)
        if recorded is not None and not recorded.rules and _shares(recorded.split) == split:
            self._take_as_it_is(window)
        elif requests:
            self._estimated = True
            for name, share in split.items():
                self._estimate(name, share * requests, window)

    def told(self) -> WouldServe:
        versions = {
            name: VersionServed(
                recorded=counts["recorded"],
                recorded_failed=counts["recorded_failed"],
                requests=counts["requests"],
                failed=counts["failed"],
                unknown=counts["unknown"],
            )
            for name, counts in sorted(self._counts.items())
        }
        return WouldServe(requests=self._requests, versions=versions, estimated=self._estimated)

    def _split_at(self, window: WindowObserved) -> dict[str, float]:
        rules = rules_in_force(self._table, int(window.start.timestamp() * _MS))
        return _shares(self._splits[rules[0].name] if rules else self._policy.split)

    def _take_as_it_is(self, window: WindowObserved) -> None:
        for name, seen in window.versions.items():
            self._counts[name]["requests"] += _requests(seen)
            self._counts[name]["failed"] += _failed(seen)

    def _estimate(self, name: str, requests: float, window: WindowObserved) -> None:
        whole = self._take(name, "requests", requests)
        self._counts[name]["requests"] += whole
        seen = window.versions.get(name)
        if seen is None or not _requests(seen):
            self._counts[name]["unknown"] += whole
            return
        failed = requests * _failed(seen) / _requests(seen)
        self._counts[name]["failed"] += self._take(name, "failed", failed)

    def _take(self, name: str, what: str, amount: float) -> int:
        owed = self._owed[name, what] + amount
        taken = max(0, floor(owed + 0.5))
        self._owed[name, what] = owed - taken
        return taken


def _requests(seen: VersionWindow) -> int:
    return seen.requests - seen.fallbacks


def _failed(seen: VersionWindow) -> int:
    return sum(seen.errors.values()) - seen.fallbacks_failed


def _shares(split: Mapping[str, float]) -> dict[str, float]:
    total = sum(split.values())
    return {name: weight / total for name, weight in split.items() if weight > 0}

"""Which arm bad answers fell in, among those that were checked.

Whether an answer is checked, and when, may depend on the version that gave it: a slow version's
come later, a failing one has fewer, its checks may find no room. So the candidate's share of the
traffic does not say how many of the bad answers should be its own; its share of the answers that
were checked does. While the versions do not differ, and given how many keys of each arm were
checked in a span and for how many of both a bad answer was found, the bad ones are as any so many
drawn from them without replacement. Each span's likelihood ratio is divided by its mean under that,
so the product is a martingale that starts at 1, however the base rate drifts from span to span.

A span is a window, or as many windows of one gateway and step as it takes until keys of both arms
are in it; how long that is does not depend on what the checks said. A window of 1,000 keys, 300 of
them bad, costs 70 to 400 us (measured), one of few keys 10.

It guarantees alpha for keys that are independent of each other, of which each counts once a step
until it is found bad, see `events.catalogue.traffic.CheckWindow`. Does not guarantee it when
whether a function fails on an answer depends on both the version and the answer's being bad, nor
for rates that drift within a span, in which the rarer arm always comes last.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, log, log1p
from typing import Final

import msgspec

from engine.analysis.assignment import HARM_ODDS, LOG_E_MAX, log_mean_exp
from engine.analysis.counts import Count
from engine.analysis.looking import Observed
from events.catalogue.traffic import VersionWindow

_LOG_ODDS: Final = tuple(log(odds) for odds in HARM_ODDS)


class Keys(msgspec.Struct, frozen=True):
    """Of one arm, in a span."""

    checked: int = 0
    bad: int = 0

    def __add__(self, other: Keys) -> Keys:
        return Keys(self.checked + other.checked, self.bad + other.bad)


NO_KEYS: Final = Keys()


class CheckedTest:
    """One gateway's keys in, evidence that the candidate's answers are worse out.

    >>> test = CheckedTest()
    >>> test.observe(0, Keys(90, 9), Keys(10, 1))
    >>> test.e_value < 1
    True
    >>> test.observe(0, Keys(90, 2), Keys(10, 8))
    >>> test.e_value > 20
    True
    """

    __slots__ = ("_logs", "_open", "e_value")

    def __init__(self) -> None:
        self._logs = [0.0] * len(_LOG_ODDS)
        self._open: dict[int, tuple[Keys, Keys]] = {}
        """Step -> what waits for a key of the other arm."""
        self.e_value = 1.0

    def observe(self, step: int, baseline: Keys, candidate: Keys) -> None:
        if not baseline.checked and not candidate.checked:
            return
        before = self._open.pop(step, (NO_KEYS, NO_KEYS))
        span = (before[0] + baseline, before[1] + candidate)
        if not span[0].checked or not span[1].checked:
            self._open[step] = span
            return
        self._add(*span)

    def _add(self, baseline: Keys, candidate: Keys) -> None:
        bad = baseline.bad + candidate.bad
        if not bad:
            return
        means = _log_means(baseline.checked, candidate.checked, bad)
        for index, (odds, mean) in enumerate(zip(_LOG_ODDS, means, strict=True)):
            self._logs[index] += candidate.bad * odds - mean
        self.e_value = exp(min(log_mean_exp(self._logs), LOG_E_MAX))


class AmongChecked:
    """A test for each gateway, and the mean of their evidence, as `GatewayTests`."""

    worse = "more of the candidate's answers are bad than of the baseline's, among those checked"

    def __init__(self) -> None:
        self._tests: dict[str, CheckedTest] = {}
        self.peak = 1.0

    def observe(self, observed: Observed, _baseline: Count, _candidate: Count) -> None:
        test = self._tests.get(observed.gateway)
        if test is None:
            test = self._tests[observed.gateway] = CheckedTest()
        test.observe(observed.step, keys(observed.baseline), keys(observed.candidate))
        self.peak = max(self.peak, self.e_value)

    @property
    def e_value(self) -> float:
        if not self._tests:
            return 1.0
        return sum(test.e_value for test in self._tests.values()) / len(self._tests)


def keys(window: VersionWindow) -> Keys:
    """Those of a version that its checks are judged by."""
    checks = window.checks
    return NO_KEYS if checks is None else Keys(checks.keys, checks.bad_keys)


def _log_means(baseline: int, candidate: int, bad: int) -> Sequence[float]:
    """For each of the odds: the logarithm of the mean of odds ** (bad ones of the candidate), when
    `bad` are drawn from both without replacement."""
    if bad == 1:
        share = candidate / (baseline + candidate)
        return [log1p(share * (odds - 1.0)) for odds in HARM_ODDS]
    fewest, most = max(0, bad - baseline), min(bad, candidate)
    weights = [0.0]
    for drawn in range(fewest, most):
        ways = (candidate - drawn) * (bad - drawn)
        weights.append(weights[-1] + log(ways / ((drawn + 1) * (baseline - bad + drawn + 1))))
    every = log_mean_exp(weights)
    return [
        log_mean_exp([weight + (fewest + more) * odds for more, weight in enumerate(weights)])
        - every
        for odds in _LOG_ODDS
    ]

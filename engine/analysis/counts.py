"""Counts of one failure-like metric: what of a window is a sample, a failure, a failing key."""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from engine.analysis.rates import lower_bound, repeats, upper_bound
from engine.analysis.sketches import count, count_above
from events.catalogue.traffic import VersionWindow

TIMEOUT_CODE: Final = "timeout"
"""The problem code of requests that were not answered in time."""


class Count(msgspec.Struct, frozen=True):
    """Samples of one arm. Counts of two spans add up."""

    samples: int = 0
    failures: int = 0
    failing_keys: int = 0
    """Keys that failed for the first time: independent of each other, as their requests are not."""
    unknown: int = 0
    """Beside the samples: of these it is not known whether they failed."""

    def __add__(self, other: Count) -> Count:
        return Count(
            self.samples + other.samples,
            self.failures + other.failures,
            self.failing_keys + other.failing_keys,
            self.unknown + other.unknown,
        )

    @property
    def rate(self) -> float:
        """0 without samples."""
        return self.failures / self.samples if self.samples else 0.0

    @property
    def repeats(self) -> float:
        """How many of these samples say as much as one that is independent.

        Keys count as failing once in a rollout, so this is asked of counts since its beginning.
        """
        return repeats(self.failures, failing_keys=self.failing_keys)


NOTHING: Final = Count()


class Metric(Protocol):
    """How a metric counts a version's window."""

    def __call__(self, window: VersionWindow) -> Count: ...


def errors(window: VersionWindow) -> Count:
    """Requests, and those that failed for whatever reason."""
    return Count(window.requests, sum(window.errors.values()), window.units.errors)


def timeouts(window: VersionWindow) -> Count:
    """Requests, and those that were not answered in time."""
    return Count(window.requests, window.errors.get(TIMEOUT_CODE, 0), window.units.timeouts)


def slower_than(limit_ms: float) -> Metric:
    """Answered requests, and those that took longer."""

    def slow(window: VersionWindow) -> Count:
        sketch = window.latency
        if sketch is None:
            return Count(0, 0, window.units.slow)
        return Count(count(sketch), count_above(sketch, limit_ms), window.units.slow)

    return slow


def bad_answers(window: VersionWindow) -> Count:
    """Answers that were checked, and those found bad; unknown are those the check failed on."""
    checks = window.checks
    if checks is None:
        return Count(0, 0, window.units.bad)
    return Count(checks.checked, checks.bad, window.units.bad, checks.failed)


def rate_interval(counted: Count, *, weight: float, alpha: float) -> tuple[float, float]:
    """Of an arm's rate, at level 1 - alpha, where `weight` samples say as much as one, and whatever
    became of those that are unknown."""
    failures, unknown = counted.failures / weight, counted.unknown / weight
    samples = counted.samples / weight + unknown
    half = alpha / 2.0
    return (
        lower_bound(failures, samples, alpha=half),
        upper_bound(failures + unknown, samples, alpha=half),
    )

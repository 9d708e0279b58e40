"""Means: an interval for a difference of means, for continuous watching.

A mixture of normal distributions (Robbins 1970) around the difference, with the variance pooled
over both arms. Asymptotic: it holds as far as the means of `SAMPLES_MIN` samples are normal. The
variance is pooled because that of a small arm is underestimated just when the arm looks different;
intervals with each arm's own variance declare differences that are none far too often.
"""

from __future__ import annotations

from math import inf, log, sqrt
from typing import Final

import msgspec

SAMPLES_MIN: Final = 100
"""In each arm. With fewer, nothing is said."""
_TIGHTEST_AT: Final = 100.0
"""The interval is tightest at a few times this many samples in the smaller arm."""


class Moments(msgspec.Struct, frozen=True, kw_only=True):
    """Of some samples. Moments of two groups add up to those of both."""

    count: int = 0
    total: float = 0.0
    """The exact sum."""
    read: float = 0.0
    """The sum of the values as they were read; equal to `total` unless read from bins."""
    squares: float = 0.0
    """The sum of the squares of the values as they were read."""

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            count=self.count + other.count,
            total=self.total + other.total,
            read=self.read + other.read,
            squares=self.squares + other.squares,
        )

    @property
    def mean(self) -> float:
        """0 without samples."""
        return self.total / self.count if self.count else 0.0

    @property
    def deviations(self) -> float:
        """The sum of squared distances from the mean."""
        return max(0.0, self.squares - self.read**2 / self.count) if self.count else 0.0


def difference(
    baseline: Moments, candidate: Moments, *, alpha: float, ratio: float = 1.0
) -> tuple[float, float] | None:
    """The candidate's mean minus `ratio` times the baseline's, at level 1 - alpha.

    Both bounds hold together; each alone holds at 1 - alpha / 2. None with fewer than `SAMPLES_MIN`
    samples in an arm.
    """
    if min(baseline.count, candidate.count) < SAMPLES_MIN:
        return None
    samples = baseline.count + candidate.count
    variance = (candidate.deviations + ratio**2 * baseline.deviations) / (samples - 2)
    weight = baseline.count * candidate.count / samples
    estimate = candidate.mean - ratio * baseline.mean
    radius = sqrt(variance) * _boundary(weight, alpha) / weight
    return estimate - radius, estimate + radius


def _boundary(time: float, alpha: float) -> float:
    """A Brownian motion stays within this at all times, with probability 1 - alpha."""
    spread = time + _TIGHTEST_AT
    return sqrt(spread * (log(spread / _TIGHTEST_AT) - 2.0 * log(alpha))) if alpha > 0.0 else inf

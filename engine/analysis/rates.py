"""Rates: intervals and tests for the share of samples that fail, valid at every look.

Guarantees, for samples that come one after another: if p is the average over the samples so far of
each one's probability to fail given all before it, then the bounds hold for p at all sample sizes
at once with probability 1 - alpha. The rate may drift and p with it; nothing is asymptotic; it is
right at no failure and at failures only. Does not guarantee anything about samples of a key that
has a rate of its own: divide them by `repeats` first.

Each bound is the best of a few. For a tilt t, exp(t * failures) / (1 + p (e^t - 1))^samples is
below a martingale that starts at 1 (by the concavity of the logarithm for a drifting rate), so it
exceeds K / alpha with probability alpha / K at most, which solved for p is a bound; K tilts share
alpha. The simulations are in `tests/analysis`.
"""

from __future__ import annotations

from math import exp, expm1, log, log1p
from typing import Final

from engine.analysis.assignment import LOG_E_MAX, log_mean_exp

_TILTS: Final = tuple(0.01 * 1.6**power for power in range(15))
"""From 0.01, best for about 100,000 failures, to 7.2, best for none."""
_STEEPNESS: Final = tuple(expm1(tilt) for tilt in _TILTS)


def lower_bound(failures: float, samples: float, *, alpha: float) -> float:
    """The rate is at least this, at every look with probability 1 - alpha. 0 without samples."""
    if samples <= 0.0 or failures <= 0.0:
        return 0.0
    penalty = log(len(_TILTS) / alpha)
    best = max(
        expm1((tilt * failures - penalty) / samples) / steepness
        for tilt, steepness in zip(_TILTS, _STEEPNESS, strict=True)
    )
    return max(best, 0.0)


def upper_bound(failures: float, samples: float, *, alpha: float) -> float:
    """The rate is at most this, at every look with probability 1 - alpha. 1 without samples."""
    return 1.0 - lower_bound(samples - failures, samples, alpha=alpha)


def interval(failures: float, samples: float, *, alpha: float) -> tuple[float, float]:
    """Both bounds, which hold together with probability 1 - alpha."""
    half = alpha / 2.0
    return (
        lower_bound(failures, samples, alpha=half),
        upper_bound(failures, samples, alpha=half),
    )


def evidence_above(failures: float, samples: float, *, limit: float) -> float:
    """Evidence that the rate is above `limit`, 0 to 1; its mean is at most 1 while it is not.

    Holds for rates that drift below the limit. 1 without samples.
    """
    logs = [
        tilt * failures - samples * log1p(limit * steepness)
        for tilt, steepness in zip(_TILTS, _STEEPNESS, strict=True)
    ]
    return exp(min(log_mean_exp(logs), LOG_E_MAX))


def repeats(failures: int, *, failing_keys: int) -> float:
    """How many failures, at least 1, say as much as one that is independent of all others.

    Failures of one key come together. So samples and failures are both divided by the mean number
    of failures of a failing key before anything here is asked of them: the rate stays, the interval
    widens. Not exact, but simulated, see `docs/decisions/012-judgement.md`.
    """
    return max(1.0, failures / max(failing_keys, 1))

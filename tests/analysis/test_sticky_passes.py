"""Simulated users with spells of failures: how often a candidate that is too bad passes a step."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engine.analysis.counts import Count, rate_interval

ALPHA, MARGIN = 0.05, 0.02
RATE, SHARE = 0.02, 0.1
USERS, WINDOWS, RUNS = 500, 150, 120

pytestmark = pytest.mark.slow


def spells(generator: np.random.Generator, rates: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Users who fail in spells of five windows on average, in these shares of the windows."""
    begins = rates * 0.2 / (1.0 - rates)
    failing = np.empty((len(rates), WINDOWS), dtype=np.bool_)
    failing[:, 0] = generator.random(len(rates)) < rates
    for window in range(1, WINDOWS):
        drawn = generator.random(len(rates))
        failing[:, window] = drawn < np.where(failing[:, window - 1], 0.8, begins)
    return failing


def arms(generator: np.random.Generator) -> tuple[list[Count], list[Count]]:
    """Both versions so far, window by window; the candidate is worse by just the margin."""
    candidate = generator.random(USERS) < SHARE
    failing = spells(generator, np.where(candidate, RATE + MARGIN, RATE))
    requests = generator.poisson(generator.gamma(1.0, 0.5, USERS)[:, None], (USERS, WINDOWS))
    failed = np.where(failing, requests, 0)
    first = (failed > 0) & (np.cumsum(failed > 0, axis=1) == 1)

    def so_far(arm: NDArray[np.bool_]) -> list[Count]:
        columns = (np.cumsum(what[arm].sum(axis=0)).tolist() for what in (requests, failed, first))
        return [Count(*counts) for counts in zip(*columns, strict=True)]

    return so_far(~candidate), so_far(candidate)


def passes(baseline: Count, candidate: Count, *, weights: tuple[float, float]) -> bool:
    low, _ = rate_interval(baseline, weight=weights[0], alpha=ALPHA / 2)
    _, high = rate_interval(candidate, weight=weights[1], alpha=ALPHA / 2)
    return high - low <= MARGIN


def test_counting_repeated_failures_as_fewer_keeps_bad_candidates_from_passing() -> None:
    generator = np.random.default_rng(31)
    by_keys = by_requests = 0
    for _ in range(RUNS):
        pairs = list(zip(*arms(generator), strict=True))[::5]
        by_keys += any(passes(b, c, weights=(b.repeats, c.repeats)) for b, c in pairs)
        by_requests += any(passes(b, c, weights=(1.0, 1.0)) for b, c in pairs)
    assert by_keys / RUNS <= ALPHA + 3 * (ALPHA * (1 - ALPHA) / RUNS) ** 0.5
    assert by_requests / RUNS > 0.2

"""Simulated traffic of two versions, window by window, for the tests that judge rollouts.

Arrays have one row per run and one column per window. Nothing here knows how it will be judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.analysis.assignment import HARM_ODDS, AssignmentTest, GatewayTests
from events.catalogue.traffic import Units, VersionWindow, WindowObserved

Counts: TypeAlias = NDArray[np.int64]
Rates: TypeAlias = NDArray[np.float64]

START: Final = datetime(2027, 6, 1, tzinfo=UTC)
SHAPES: Final = ((0.5, 0.05), (0.1, 0.02), (0.05, 0.01), (0.05, 0.002))
"""(share of the candidate, rate of failures)."""
STEPPING: Final = (0.05, 0.1, 0.25, 0.5)


class Arms(msgspec.Struct, frozen=True):
    """Units and failures of both versions."""

    shares: Rates
    """The candidate's, per window."""
    baseline: Counts
    baseline_failures: Counts
    candidate: Counts
    candidate_failures: Counts


def independent(
    generator: np.random.Generator,
    *,
    runs: int,
    shares: Rates,
    rates: Rates,
    requests: int,
    harm: float = 1.0,
) -> Arms:
    """Requests that have nothing to do with each other, so many per window.

    The candidate fails `harm` times as often, at most always.
    """
    candidate = generator.binomial(requests, shares, (runs, len(shares)))
    baseline = requests - candidate
    return Arms(
        shares=shares,
        baseline=baseline,
        baseline_failures=generator.binomial(baseline, rates),
        candidate=candidate,
        candidate_failures=generator.binomial(candidate, np.minimum(1.0, rates * harm)),
    )


def constant(value: float, windows: int) -> Rates:
    return np.full(windows, value)


def stepping(windows: int) -> Rates:
    """Shares that grow from step to step, as in a rollout."""
    return np.repeat(np.array(STEPPING), -(-windows // len(STEPPING)))[:windows]


def drifting(low: float, high: float, windows: int) -> Rates:
    """A rate that grows as the shares of `stepping` do, and swings."""
    time = np.linspace(0.0, 1.0, windows)
    return (low + (high - low) * time) * (1.0 + 0.5 * np.sin(12.0 * time))


class Sticky(msgspec.Struct, frozen=True):
    """One run of users who keep their version; failures counted in three ways."""

    once: Arms
    """Of a user, the first."""
    per_window: Arms
    """Of a user, one in each window."""
    every: Arms
    """Of a user, every request."""


def sticky(generator: np.random.Generator, *, users: int, shares: Rates) -> Sticky:
    """Users with rates and activity of their own, who fail in spells and in shocks to everybody.

    Their version depends on nothing but their bucket and the share, which only grows.
    """
    candidate = generator.random(users)[:, None] < shares[None, :]
    requests, failed = _spells(generator, users, len(shares))
    fails = failed > 0
    counted = (_first(fails), fails, failed)
    return Sticky(*(_split(requests, failures, candidate, shares) for failures in counted))


def roaming(
    generator: np.random.Generator, *, users: int, gateways: int, shares: Rates
) -> tuple[Arms, ...]:
    """What each gateway counts when the requests of a user in a window go to any of them.

    Each counts a user's first failure that it sees, as `Sticky.once` does for all together.
    """
    candidate = generator.random(users)[:, None] < shares[None, :]
    requests, failed = _spells(generator, users, len(shares))
    at = generator.integers(0, gateways, failed.shape)
    return tuple(
        _split(requests * (at == one), _first((failed > 0) & (at == one)), candidate, shares)
        for one in range(gateways)
    )


def _spells(generator: np.random.Generator, users: int, windows: int) -> tuple[Counts, Counts]:
    """(requests, failed requests), a row per user."""
    rate = generator.beta(0.2, 4.0, users)
    shock = np.where(generator.random(windows) < 0.05, 8.0, 1.0)
    activity = generator.gamma(0.5, 4.0, users)
    requests = generator.poisson(activity[:, None], (users, windows))
    spells = generator.random((users, windows)) < np.minimum(1.0, rate[:, None] * shock)
    lasting = generator.random((users, windows)) < 0.7
    for window in range(1, windows):
        spells[:, window] |= spells[:, window - 1] & lasting[:, window]
    return requests, np.where(spells, requests, 0)


def _first(fails: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(fails & (np.cumsum(fails, axis=1) == 1), dtype=np.bool_)


def _split(
    requests: Counts, failures: Counts | NDArray[np.bool_], candidate: NDArray[np.bool_], s: Rates
) -> Arms:
    def of(what: Counts | NDArray[np.bool_], arm: NDArray[np.bool_]) -> Counts:
        return np.asarray((what * arm).sum(axis=0, keepdims=True), dtype=np.int64)

    return Arms(
        s,
        of(requests, ~candidate),
        of(failures, ~candidate),
        of(requests, candidate),
        of(failures, candidate),
    )


def first_alarms(
    arms: Arms, *, alpha: float, odds: tuple[float, ...] = HARM_ODDS
) -> list[int | None]:
    """The first window of each run at which the failures' arms raise an alarm."""
    shares = arms.shares.tolist()
    return [
        _first_alarm(shares, baseline, candidate, alpha, odds)
        for baseline, candidate in zip(
            arms.baseline_failures.tolist(), arms.candidate_failures.tolist(), strict=True
        )
    ]


def _first_alarm(
    shares: Sequence[float],
    baseline: Sequence[int],
    candidate: Sequence[int],
    alpha: float,
    odds: tuple[float, ...],
) -> int | None:
    test = AssignmentTest(odds=odds)
    columns = enumerate(zip(shares, baseline, candidate, strict=True))
    for window, (share, in_baseline, in_candidate) in columns:
        test.observe(share, in_baseline=in_baseline, in_candidate=in_candidate)
        if test.peak >= 1.0 / alpha:
            return window
    return None


def alarmed_together(gateways: Sequence[Arms], *, alpha: float) -> bool:
    """Whether what gateways count apart, in one run, raises an alarm."""
    test = GatewayTests()
    for column, share in enumerate(gateways[0].shares.tolist()):
        for number, arms in enumerate(gateways):
            test.observe(
                f"g{number}",
                share,
                in_baseline=int(arms.baseline_failures[0, column]),
                in_candidate=int(arms.candidate_failures[0, column]),
            )
    return test.peak >= 1.0 / alpha


def multiplied(gateways: Sequence[Arms]) -> Arms:
    """The same counts as if they were one gateway's, which they are not."""
    return Arms(
        gateways[0].shares,
        _sum_of([arms.baseline for arms in gateways]),
        _sum_of([arms.baseline_failures for arms in gateways]),
        _sum_of([arms.candidate for arms in gateways]),
        _sum_of([arms.candidate_failures for arms in gateways]),
    )


def _sum_of(counts: Sequence[Counts]) -> Counts:
    return np.asarray(np.sum(counts, axis=0), dtype=np.int64)


def peeking(arms: Arms) -> float:
    """The share of runs in which a z-test at 0.05 finds a difference at any look."""
    baseline, candidate, failed_b, failed_c = _sums(arms)
    pooled = (failed_b + failed_c) / (baseline + candidate)
    with np.errstate(divide="ignore", invalid="ignore"):
        spread = np.sqrt(pooled * (1.0 - pooled) * (1.0 / baseline + 1.0 / candidate))
        score = np.abs(failed_c / candidate - failed_b / baseline) / spread
    return float(np.mean((np.nan_to_num(score, posinf=0.0) > 1.96).any(axis=1)))


def textbook(arms: Arms) -> float:
    """The same, of an asymptotic confidence sequence with each arm's own variance at 0.05."""
    baseline, candidate, failed_b, failed_c = _sums(arms)
    time = baseline * candidate / (baseline + candidate)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate_b, rate_c = failed_b / baseline, failed_c / candidate
        variance = rate_b * (1 - rate_b) / baseline + rate_c * (1 - rate_c) / candidate
        spread = time + 100.0
        boundary = np.sqrt(spread * (np.log(spread / 100.0) - 2.0 * np.log(0.05)) / time)
        outside = np.abs(rate_c - rate_b) > np.sqrt(variance) * boundary
    enough = (candidate >= 5) & (failed_b + failed_c > 0)
    return float(np.mean((outside & enough).any(axis=1)))


def _sums(arms: Arms) -> tuple[Rates, Rates, Rates, Rates]:
    columns = (arms.baseline, arms.candidate, arms.baseline_failures, arms.candidate_failures)
    first, second, third, fourth = (np.cumsum(c, axis=1).astype(np.float64) for c in columns)
    return first, second, third, fourth


def window(policy: int, arms: Arms, run: int, column: int) -> WindowObserved:
    """What a gateway would have said about this window: versions `baseline` and `candidate`."""

    def version(requests: Counts, failures: Counts) -> VersionWindow:
        seen, failed = int(requests[run, column]), int(failures[run, column])
        errors = {"runtime_failed": failed} if failed else {}
        return VersionWindow(requests=seen, errors=errors, units=Units(seen=seen, errors=failed))

    return WindowObserved(
        gateway="g1",
        start=START,
        versions={
            "baseline": version(arms.baseline, arms.baseline_failures),
            "candidate": version(arms.candidate, arms.candidate_failures),
        },
        policy=policy,
    )

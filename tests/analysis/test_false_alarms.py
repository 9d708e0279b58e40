"""Simulated rollouts without a difference: alarms are as rare as promised, and rivals' are not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pytest

from engine.analysis.assignment import MISMATCH_ODDS
from engine.analysis.sample_ratio import ALPHA as RATIO_ALPHA
from switchback.bench.trials import (
    SHAPES,
    Arms,
    alarmed_together,
    constant,
    drifting,
    first_alarms,
    independent,
    multiplied,
    peeking,
    roaming,
    stepping,
    sticky,
    textbook,
)

ALPHA = 0.05
RUNS, STICKY_RUNS = 2_000, 300
WINDOWS, REQUESTS = 100, 100

pytestmark = pytest.mark.slow


def arms(shares: np.ndarray, rates: np.ndarray) -> Arms:
    generator = np.random.default_rng(11)
    return independent(generator, runs=RUNS, shares=shares, rates=rates, requests=REQUESTS)


def alarmed(trials: Iterable[Arms]) -> float:
    found = [one for trial in trials for one in first_alarms(trial, alpha=ALPHA)]
    return sum(window is not None for window in found) / len(found)


def allowed(alpha: float, runs: int) -> float:
    """Alpha and three standard errors."""
    return alpha + 3.0 * float(np.sqrt(alpha * (1.0 - alpha) / runs))


@pytest.mark.parametrize(("share", "rate"), SHAPES)
def test_on_every_shape_alarms_are_as_rare_as_promised_where_peeking_breaks(
    share: float, rate: float
) -> None:
    trial = arms(constant(share, WINDOWS), constant(rate, WINDOWS))
    assert alarmed([trial]) <= allowed(ALPHA, RUNS)
    assert peeking(trial) > 2 * allowed(ALPHA, RUNS)


@pytest.mark.parametrize(("share", "rate"), SHAPES[1:])
def test_a_textbook_sequence_breaks_on_canaries(share: float, rate: float) -> None:
    assert textbook(arms(constant(share, WINDOWS), constant(rate, WINDOWS))) > 0.15


def test_rates_that_drift_while_weights_step_raise_no_more_alarms() -> None:
    trial = arms(stepping(WINDOWS), drifting(0.01, 0.08, WINDOWS))
    assert alarmed([trial]) <= allowed(ALPHA, RUNS)
    assert peeking(trial) > 0.5 and textbook(trial) > 0.5


def test_keys_that_fall_as_they_should_rarely_raise_the_alarm_of_sample_ratio() -> None:
    trial = arms(stepping(WINDOWS), constant(0.0, WINDOWS))
    keys = Arms(trial.shares, trial.baseline, trial.baseline, trial.candidate, trial.candidate)
    found = first_alarms(keys, alpha=RATIO_ALPHA, odds=MISMATCH_ODDS)
    assert sum(one is not None for one in found) / RUNS <= allowed(RATIO_ALPHA, RUNS)


def test_users_who_fail_together_count_once_and_raise_no_more_alarms() -> None:
    generator = np.random.default_rng(12)
    runs = [sticky(generator, users=200, shares=stepping(WINDOWS)) for _ in range(STICKY_RUNS)]
    once = [run.once for run in runs]
    assert alarmed(once) <= allowed(ALPHA, STICKY_RUNS)
    assert alarmed(run.per_window for run in runs) > 0.2
    assert alarmed(run.every for run in runs) > 0.3
    assert mean([peeking(trial) for trial in once]) > 0.5
    assert mean([textbook(trial) for trial in once]) > 0.5


def test_users_who_roam_between_gateways_raise_no_more_alarms() -> None:
    generator = np.random.default_rng(13)
    runs = [
        roaming(generator, users=200, gateways=4, shares=stepping(WINDOWS))
        for _ in range(STICKY_RUNS)
    ]
    apart = sum(alarmed_together(gateways, alpha=ALPHA) for gateways in runs) / STICKY_RUNS
    assert apart <= allowed(ALPHA, STICKY_RUNS)
    assert alarmed(multiplied(gateways) for gateways in runs) > 2 * ALPHA


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

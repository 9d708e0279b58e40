"""Line `judgement`: how often rollouts are wrong, how soon they are right, and what it costs.

Simulated, from one seed: the same run gives the same figures on every machine, times apart.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable, Iterator, Sequence
from math import sqrt
from statistics import median
from typing import Final, TypeVar

import msgspec
import numpy as np

from engine.analysis import Evidence
from engine.analysis.assignment import MISMATCH_ODDS
from engine.analysis.sample_ratio import ALPHA as RATIO_ALPHA
from events.catalogue.endpoints import Analysis, Step
from events.catalogue.traffic import WindowObserved
from switchback.bench.figures import Goal, Row, percentile, row
from switchback.bench.ramps import WEIGHTS, Ended, detection_s, ramp
from switchback.bench.sizes import Sizes
from switchback.bench.stage import Clients
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
    window,
)

T = TypeVar("T")

NAME: Final = "judgement"
ALPHA: Final = 0.05
SEED: Final = 20_270_601
WINDOWS: Final = 100
REQUESTS: Final = 100
"""Per window: a run has 10,000."""
USERS: Final = 200
GATEWAYS: Final = 4
HARMS: Final = (1.25, 1.5, 2.0, 3.0, 5.0)
POWER_SHAPE: Final = (0.1, 0.02)
RUNS_PER_TENTH: Final = 10
BAD_RATES: Final = (0.05, 0.2, 1.0)
LOADS_PER_S: Final = (50, 500)
DETECTION_SECONDS_MAX: Final = 1_800
ALWAYS_FAILS_S: Final = Goal("at most", 15)
STEP_SECONDS_MAX: Final = 600
OBSERVED_US: Final = Goal("at most", 50)
JUDGED_US: Final = Goal("at most", 500)


async def measure(clients: Clients, sizes: Sizes) -> Sequence[Row]:
    return await clients.call(simulate, sizes.judged_runs, sizes.judged_windows, sizes.rounds)


async def simulate(runs: int, windows: int, rounds: int) -> Sequence[Row]:
    generator = np.random.default_rng(SEED)
    return (
        *_false_alarms(generator, runs),
        *_power(generator, runs),
        *_detection(generator, max(2, runs // RUNS_PER_TENTH)),
        *_passing(generator, max(2, runs // RUNS_PER_TENTH)),
        *_costs(generator, windows, rounds),
    )


def _false_alarms(generator: np.random.Generator, runs: int) -> Iterator[Row]:
    """Without a difference; the goal is alpha and three standard errors."""
    for share, rate in SHAPES:
        arms = _arms(generator, runs, constant(share, WINDOWS), constant(rate, WINDOWS))
        yield from _beside_rivals(f"{share:.0%} share, {rate:.1%} fail", [arms])
    steps = stepping(WINDOWS)
    arms = _arms(generator, runs, steps, drifting(0.01, 0.08, WINDOWS))
    yield from _beside_rivals("rates drift, weights step", [arms])
    keys = Arms(steps, arms.baseline, arms.baseline, arms.candidate, arms.candidate)
    found = _share_of(first_alarms(keys, alpha=RATIO_ALPHA, odds=MISMATCH_ODDS))
    yield _false("sample ratio, weights step", found, RATIO_ALPHA, runs)
    users = [sticky(generator, users=USERS, shares=steps) for _ in range(runs)]
    yield from _beside_rivals("sticky users", [one.once for one in users])
    for name, counted in (
        ("once per user and window", [one.per_window for one in users]),
        ("every request counted", [one.every for one in users]),
    ):
        yield _percent(f"- sticky users: {name}", _alarmed(counted))
    seen = [roaming(generator, users=USERS, gateways=GATEWAYS, shares=steps) for _ in range(runs)]
    apart = sum(alarmed_together(gateways, alpha=ALPHA) for gateways in seen) / runs
    yield _false(f"users roam between {GATEWAYS} gateways", apart, ALPHA, runs)
    together = _alarmed([multiplied(gateways) for gateways in seen])
    yield _percent("- users roam: gateways' counts multiplied", together)


def _beside_rivals(what: str, trials: Sequence[Arms]) -> Iterator[Row]:
    """`trials` are arrays of runs, or one run each."""
    runs = sum(len(arms.baseline) for arms in trials)
    yield _false(what, _alarmed(trials), ALPHA, runs)
    yield _percent(f"- {what}: z-test, peeking", _mean(peeking(arms) for arms in trials))
    yield _percent(f"- {what}: textbook sequence", _mean(textbook(arms) for arms in trials))


def _power(generator: np.random.Generator, runs: int) -> Iterator[Row]:
    share, rate = POWER_SHAPE
    for harm in HARMS:
        arms = _arms(generator, runs, constant(share, WINDOWS), constant(rate, WINDOWS), harm=harm)
        found = first_alarms(arms, alpha=ALPHA)
        what = f"x{harm:g} at {share:.0%} share, {rate:.0%} fail"
        yield _percent(f"power in 10,000 requests, {what}", _share_of(found))
        until = [(column + 1) * REQUESTS for column in found if column is not None]
        if until:
            yield row(NAME, f"- until the alarm, {what}", "requests", [float(median(until))])


def _detection(generator: np.random.Generator, runs: int) -> Iterator[Row]:
    for requests_per_s in LOADS_PER_S:
        for bad_rate in BAD_RATES:
            seconds = [
                detection_s(
                    generator,
                    bad_rate=bad_rate,
                    requests_per_s=requests_per_s,
                    seconds_max=DETECTION_SECONDS_MAX,
                )
                or DETECTION_SECONDS_MAX
                for _ in range(runs)
            ]
            what = f"1% against {bad_rate:.0%}, {requests_per_s}/s"
            goal = ALWAYS_FAILS_S if bad_rate == 1.0 else None
            yield row(NAME, f"detected, {what}", "s", [float(median(seconds))])
            yield row(NAME, f"- {what}, p95", "s", [percentile(seconds, 95)], goal=goal)


def _passing(generator: np.random.Generator, runs: int) -> Iterator[Row]:
    """Each step lasts ten minutes at most; one that has not passed by then is over."""
    for rate in (0.01, 0.02, 0.05):
        good = _ramps(generator, runs, rate=rate, harm=1.0)
        whole = sum(steps[-1].outcome == "pass" for steps in good) / runs
        failed = sum(steps[-1].outcome == "fail" for steps in good) / runs
        yield _false(f"steps that end by what is seen, {rate:.0%} fail", failed, ALPHA, runs)
        yield _percent(f"as good, {rate:.0%} fail: passed all steps", whole)
        if rate == POWER_SHAPE[1]:
            yield from _each_step(good)
    for rate in (0.01, 0.02, 0.05):
        bad = _ramps(generator, runs, rate=rate, harm=2.0)
        first, whole = (
            sum(len(steps) > number and steps[number].outcome == "pass" for steps in bad) / runs
            for number in (0, len(WEIGHTS) - 1)
        )
        yield _percent(f"x2 bad, {rate:.0%} fail: passed the first step", first)
        yield _percent(f"x2 bad, {rate:.0%} fail: passed all steps", whole)


def _ramps(
    generator: np.random.Generator, runs: int, *, rate: float, harm: float
) -> list[list[Ended]]:
    return [
        ramp(
            generator,
            rate=rate,
            harm=harm,
            requests_per_s=REQUESTS,
            step_seconds_max=STEP_SECONDS_MAX,
        )
        for _ in range(runs)
    ]


def _each_step(ramps: Sequence[Sequence[Ended]]) -> Iterator[Row]:
    for number, weight in enumerate(WEIGHTS):
        begun = [steps[number] for steps in ramps if len(steps) > number]
        passed = [step for step in begun if step.outcome == "pass"]
        if passed:
            yield _percent(f"- step {weight:g}%: passed", len(passed) / len(begun))
            samples = float(median(step.samples for step in passed))
            what = f"- step {weight:g}%: candidate's samples to pass"
            yield row(NAME, what, "requests", [samples])


def _costs(generator: np.random.Generator, windows: int, rounds: int) -> Iterator[Row]:
    """Of a window and of a judgement, every metric and limit that windows without latency allow."""
    arms = independent(
        generator,
        runs=1,
        shares=constant(0.1, windows),
        rates=constant(0.02, windows),
        requests=REQUESTS,
    )
    seen = [window(1, arms, 0, column) for column in range(windows)]
    texts = [msgspec.json.encode(one) for one in seen]
    decoder = msgspec.json.Decoder(WindowObserved)
    analysis = Analysis(metric="timeout_rate", max_error_rate=0.1)
    step = Step(weight=10.0, hold_s=0.0)
    figures: dict[str, list[float]] = {"decoded": [], "observed": [], "judged": []}
    for _ in range(rounds):
        evidence = Evidence(baseline="baseline", candidate="candidate", analysis=analysis)
        evidence.enter(step=0, policy=1, share=0.1)
        figures["decoded"].append(_each_us(decoder.decode, texts))
        figures["observed"].append(_each_us(evidence.observe, seen))
        figures["judged"].append(_each_us(evidence.judge, [step] * windows))
    decoded = figures["decoded"]
    yield row(
        NAME, "a window observed", "us", figures["observed"], ceilings=decoded, goal=OBSERVED_US
    )
    yield row(NAME, "a judgement", "us", figures["judged"], goal=JUDGED_US)


def _each_us(call: Callable[[T], object], items: Sequence[T]) -> float:
    def every() -> None:
        for item in items:
            call(item)

    return timeit.timeit(every, number=1) / len(items) * 1e6


def _arms(
    generator: np.random.Generator,
    runs: int,
    shares: np.typing.NDArray[np.float64],
    rates: np.typing.NDArray[np.float64],
    *,
    harm: float = 1.0,
) -> Arms:
    return independent(
        generator, runs=runs, shares=shares, rates=rates, requests=REQUESTS, harm=harm
    )


def _alarmed(trials: Sequence[Arms]) -> float:
    return _share_of([one for arms in trials for one in first_alarms(arms, alpha=ALPHA)])


def _share_of(found: Sequence[int | None]) -> float:
    return sum(column is not None for column in found) / len(found)


def _mean(shares: Iterator[float]) -> float:
    values = list(shares)
    return sum(values) / len(values)


def _false(what: str, found: float, alpha: float, runs: int) -> Row:
    allowed = alpha + 3.0 * sqrt(alpha * (1.0 - alpha) / runs)
    goal = Goal("at most", round(100.0 * allowed, 2))
    return row(NAME, f"false alarms, {what}", "%", [100.0 * found], goal=goal)


def _percent(what: str, share: float) -> Row:
    return row(NAME, what, "%", [100.0 * share])

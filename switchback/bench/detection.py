"""Line `detection`: how long a canary that fails is let go on, on two gateways.

A rollout holds at 5 % of the traffic, and the baseline fails on 1 % of it. What counts is the time
from the first bad answer that a client got until the last answer of that version at any gateway;
windows, verdict, command and the gateways' own delay are in it. With the fast rule and without it,
and after the command of a person. What takes minutes is simulated by line `judgement`.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Final

import msgspec

from switchback.bench.failing import (
    BASELINE,
    CANDIDATES,
    Endpoint,
    connected_to_all,
    make_versions,
    version_asked,
    version_in,
)
from switchback.bench.figures import Goal, Row, percentile, row
from switchback.bench.http import Answer, Connection, RequestFailed, Target, connected
from switchback.bench.load import paced
from switchback.bench.sizes import Sizes
from switchback.bench.stage import BenchFailed, Stage

NAME: Final = "detection"
ANY_RULE_S: Final = Goal("at most", 10)
STATISTICAL_S: Final = Goal("at most", 15)
BY_COMMAND_MS: Final = Goal("at most", 1_000)
ALWAYS: Final = 1.0
ALWAYS_SECONDS_MAX: Final = 60.0
REQUESTS_AT_ONCE_PER_S: Final = 500
"""Of all trials that run side by side."""
CONNECTIONS: Final = 4
"""Of a trial, to each gateway."""
POLL_SECONDS: Final = 0.1
AFTER_SECONDS: Final = 1.0
"""How long a trial goes on when its rollout is over, to see late answers."""
SEEN_SECONDS_MAX: Final = 10.0


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One canary under load, on an endpoint of its own."""

    endpoint: str
    error_rate: float
    requests_per_s: int
    seconds_max: float
    """It is given up then."""


async def measure(stage: Stage, sizes: Sizes) -> Sequence[Row]:
    first = await stage.start("gateway", "projector", "node", name="g1")
    second = await stage.start("gateway", name="g2")
    targets = [first.target, second.target]
    await stage.call(prepare, first.target)
    rows = await _by_command(stage, targets, sizes)
    async with stage.running("reactor", name="statistical", burst_alerts=False):
        for rate in sizes.detected_per_s:
            rows.append(await _always(stage, targets, sizes, rate, "statistical", STATISTICAL_S))
            rows += await _sometimes(stage, targets, sizes, rate)
    async with stage.running("reactor", name="both"):
        for rate in sizes.detected_per_s:
            rows.append(await _always(stage, targets, sizes, rate, "any", ANY_RULE_S))
    return rows


async def prepare(target: Target) -> None:
    async with connected(target, 1) as [control]:
        await make_versions(target, control)


# ------------------------------------------------------------------------------- By somebody


async def _by_command(stage: Stage, targets: Sequence[Target], sizes: Sizes) -> list[Row]:
    """Nothing reacts meanwhile: there is no reactor yet."""
    rows = []
    for what, command in (("critical alert by API", "alert"), ("rollback in a rollout", "return")):
        taken_s = await stage.call(take_back, targets, command, sizes.switches)
        figure = f"{what} until the last bad answer, p99"
        rows.append(row(NAME, figure, "ms", [percentile(taken_s, 99) * 1_000], goal=BY_COMMAND_MS))
    return rows


async def take_back(targets: Sequence[Target], command: str, count: int) -> list[float]:
    """Seconds from each command until the last answer of the canary at any gateway.

    Each gateway is asked without a pause for a key that the canary serves.
    """
    async with AsyncExitStack() as stack:
        [control] = await stack.enter_async_context(connected(targets[0], 1))
        gateways = await stack.enter_async_context(connected_to_all(targets, 1))
        endpoint = Endpoint(f"by-{command}", targets[0], control)
        ask = {"alert": endpoint.raise_alert, "return": endpoint.roll_back}[command]
        await endpoint.make()
        return [await _taken_back(endpoint, gateways, ask) for _ in range(count)]


async def _taken_back(
    endpoint: Endpoint, gateways: dict[Connection, Target], ask: Callable[[], Awaitable[None]]
) -> float:
    await endpoint.start_rollout(CANDIDATES[ALWAYS])
    key = await _served_by_the_canary(endpoint, gateways)
    returning = [
        asyncio.create_task(_last_bad(connection, endpoint.infer(target, key)))
        for connection, target in gateways.items()
    ]
    asked = time.perf_counter()
    await ask()
    async with asyncio.timeout(SEEN_SECONDS_MAX):
        return max(await asyncio.gather(*returning)) - asked


async def _served_by_the_canary(endpoint: Endpoint, gateways: dict[Connection, Target]) -> str:
    connection, target = next(iter(gateways.items()))
    keys = (f"user-{number}" for number in itertools.count())
    for key in keys:
        if await version_asked(connection, endpoint.infer(target, key)) != BASELINE:
            return key
    raise AssertionError("there is no last key")


async def _last_bad(connection: Connection, request: bytes) -> float:
    """When the canary answered this request for the last time, on the clock of perf_counter."""
    last = time.perf_counter()
    while await version_asked(connection, request) != BASELINE:
        last = time.perf_counter()
    return last


# -------------------------------------------------------------------------------- By itself


async def _always(
    stage: Stage, targets: Sequence[Target], sizes: Sizes, rate: int, rule: str, goal: Goal
) -> Row:
    """A version that fails always has to be found out."""
    trials = _trials(f"{rule}-{rate}", ALWAYS, rate, sizes.detections, ALWAYS_SECONDS_MAX)
    found = await _run(stage, targets, trials)
    taken_s = [seconds for seconds in found if seconds is not None]
    if len(taken_s) < len(found):
        raise BenchFailed(f"a version that always fails was let go on for {ALWAYS_SECONDS_MAX} s")
    by = "by any rule" if rule == "any" else "by statistics alone"
    return row(
        NAME, f"first to last bad answer, always fails, {rate}/s, {by}", "s", taken_s, goal=goal
    )


async def _sometimes(stage: Stage, targets: Sequence[Target], sizes: Sizes, rate: int) -> list[Row]:
    """One that fails now and then takes longer, at times than this line may."""
    limit_s = sizes.detection_seconds_max
    count = min(sizes.detections, REQUESTS_AT_ONCE_PER_S // rate)
    rates = [error_rate for error_rate in CANDIDATES if error_rate != ALWAYS]
    trials = [
        trial
        for error_rate in rates
        for trial in _trials(f"some-{rate}", error_rate, rate, count, limit_s)
    ]
    found = await _run(stage, targets, trials)
    rows = []
    for error_rate in rates:
        mine = [s for s, trial in zip(found, trials, strict=True) if trial.error_rate == error_rate]
        within = [seconds for seconds in mine if seconds is not None]
        what = f"1% against {error_rate:.0%}, {rate}/s"
        share = 100 * len(within) / len(mine)
        rows.append(row(NAME, f"{what}: found out within {limit_s:g} s", "%", [share]))
        if within:
            rows.append(row(NAME, f"- {what}: first to last bad answer of those", "s", within))
    return rows


def _trials(name: str, error_rate: float, rate: int, count: int, seconds_max: float) -> list[Trial]:
    return [
        Trial(
            endpoint=f"{name}-{error_rate * 100:.0f}-{number}",
            error_rate=error_rate,
            requests_per_s=rate,
            seconds_max=seconds_max,
        )
        for number in range(count)
    ]


async def _run(
    stage: Stage, targets: Sequence[Target], trials: Sequence[Trial]
) -> list[float | None]:
    """As many side by side as leave the machine room."""
    at_once = max(1, REQUESTS_AT_ONCE_PER_S // trials[0].requests_per_s)
    found: list[float | None] = []
    for start in range(0, len(trials), at_once):
        found += await stage.call(watch_all, targets, trials[start : start + at_once])
    return found


async def watch_all(targets: Sequence[Target], trials: Sequence[Trial]) -> list[float | None]:
    return list(await asyncio.gather(*(watch(targets, trial) for trial in trials)))


async def watch(targets: Sequence[Target], trial: Trial) -> float | None:
    """Seconds from the first bad answer to the version's last one; None if it was let go on."""
    async with AsyncExitStack() as stack:
        [control] = await stack.enter_async_context(connected(targets[0], 1))
        gateways = await stack.enter_async_context(connected_to_all(targets, CONNECTIONS))
        endpoint = Endpoint(trial.endpoint, targets[0], control)
        await endpoint.make()
        seen = _Seen(endpoint, gateways, CANDIDATES[trial.error_rate])
        enough = asyncio.Event()
        numbers = itertools.takewhile(lambda _: not enough.is_set(), itertools.count())
        load = asyncio.create_task(paced(list(gateways), numbers, trial.requests_per_s, seen.ask))
        try:
            over = await _over(endpoint, CANDIDATES[trial.error_rate], trial.seconds_max)
        finally:
            enough.set()
            await load
        return seen.seconds if over else None


async def _over(endpoint: Endpoint, candidate: str, seconds_max: float) -> bool:
    """Whether the rollout ended by itself; it has ended now."""
    await endpoint.start_rollout(candidate)
    try:
        async with asyncio.timeout(seconds_max):
            await _ended(endpoint)
    except TimeoutError:
        await endpoint.roll_back()
        return False
    await asyncio.sleep(AFTER_SECONDS)
    return True


async def _ended(endpoint: Endpoint) -> None:
    while True:
        if not await endpoint.rolling():
            return
        await asyncio.sleep(POLL_SECONDS)


class _Seen:
    """What the clients of one endpoint saw of one version."""

    def __init__(
        self, endpoint: Endpoint, gateways: dict[Connection, Target], version: str
    ) -> None:
        self._endpoint = endpoint
        self._gateways = gateways
        self._version = version
        self._first_bad: float | None = None
        self._last = 0.0

    @property
    def seconds(self) -> float:
        """Raises BenchFailed when no answer was bad."""
        if self._first_bad is None:
            raise BenchFailed("a rollout ended that no bad answer was seen of")
        return self._last - self._first_bad

    async def ask(self, connection: Connection, number: int) -> Answer:
        """One request of a user of its own."""
        request = self._endpoint.infer(self._gateways[connection], f"user-{number}")
        try:
            answer = await connection.ask(request)
        except RequestFailed as error:
            if version_in(error.answer) == self._version:
                self._last = time.perf_counter()
                self._first_bad = self._first_bad or self._last
            raise
        if version_in(answer) == self._version:
            self._last = time.perf_counter()
        return answer

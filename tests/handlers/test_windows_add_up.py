"""Whatever requests do, in any order: the windows add up to what happened, by a model of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from events.catalogue.endpoints import Policy
from events.catalogue.traffic import Units
from events.memory import MemoryLog
from handlers.traffic.passages import Passage
from handlers.traffic.windows import Windows
from tests.handlers.passing import BOTH, Seconds, begun, next_second, route, with_policy

VERSIONS: Final = ("1.0.0", "2.0.0", "3.0.0")
POLICIES: Final = (
    BOTH,
    Policy(split={"1.0.0": 50.0, "2.0.0": 50.0}),
    Policy(split=dict.fromkeys(VERSIONS, 1.0)),
    Policy(split={"1.0.0": 1.0}),
)


class Begin(msgspec.Struct, frozen=True):
    version: str
    key: int | None
    rule: str | None


class End(msgspec.Struct, frozen=True):
    """Of one of those that are under way."""

    which: int
    how: str
    """`answered`, `left` or a problem code."""


class SetPolicy(msgspec.Struct, frozen=True):
    policy: int


class NextSecond(msgspec.Struct, frozen=True):
    pass


begins = st.builds(
    Begin,
    st.sampled_from(VERSIONS[:2]),
    st.sampled_from((None, 0, 0, 1)),
    st.sampled_from((None, None, None, "beta")),
)
ends = st.builds(
    End,
    st.integers(0, 99),
    st.sampled_from(("answered", "left", "timeout", "timeout", "runtime_failed")),
)
turns = st.builds(SetPolicy, st.integers(0, len(POLICIES) - 1)) | st.builds(NextSecond)
# Requests more often than turns, and many steps: else hardly any key comes twice.
steps = st.lists(st.one_of(begins, begins, ends, ends, ends, turns), min_size=30, max_size=60)


class Request(msgspec.Struct, frozen=True):
    passage: Passage
    begin: Begin
    where: tuple[int, str]
    """Policy and version."""
    era: int | None
    """Which time of sharing by the same versions it began in; None: it is no unit."""


class Model:
    """What must be counted, the plain way: every fact is remembered, for ever."""

    def __init__(self) -> None:
        self.windows = Windows(gateway="g1", log=MemoryLog(), clock=Seconds())
        self.at = route()
        self.versions = self.at.table.split.versions
        self.era = 0
        self.under_way: list[Request] = []
        self.known: set[tuple[object, ...]] = set()
        self.requests: Counter[tuple[int, str]] = Counter()
        self.errors: Counter[tuple[int, str, str]] = Counter()
        self.units: Counter[tuple[int, str, str]] = Counter()

    def unit(self, request: Request, kind: str) -> None:
        if request.era is None:
            return
        key = request.begin.key
        if key is None or (request.era, key, kind) not in self.known:
            self.known.add((request.era, key, kind))
            self.units[(*request.where, kind)] += 1

    def begin(self, begin: Begin) -> None:
        passage = begun(
            self.windows, self.at, version=begin.version, key=begin.key, rule=begin.rule
        )
        if self.at.table.split.versions != self.versions:
            self.versions = self.at.table.split.versions
            self.era += 1
        is_unit = begin.rule is None and len(self.versions) > 1
        where = (self.at.table.position, begin.version)
        request = Request(passage, begin, where, self.era if is_unit else None)
        self.under_way.append(request)
        self.unit(request, "seen")

    def end(self, end: End) -> None:
        if not self.under_way:
            return
        request = self.under_way.pop(end.which % len(self.under_way))
        if end.how == "left":
            request.passage.left()
            return
        self.requests[request.where] += 1
        if end.how == "answered":
            request.passage.answered(latency_ms=1.0)
            return
        request.passage.failed(code=end.how)
        self.errors[(*request.where, end.how)] += 1
        self.unit(request, "errors")
        if end.how == "timeout":
            self.unit(request, "timeouts")


@pytest.mark.slow
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=steps)
def test_windows_add_up_to_what_happened(steps):
    asyncio.run(_run(steps))


async def _run(steps: list[Begin | End | SetPolicy | NextSecond]) -> None:
    model = Model()
    clock = model.windows._clock
    assert isinstance(clock, Seconds)
    for step in steps:
        match step:
            case Begin():
                model.begin(step)
            case End():
                model.end(step)
            case SetPolicy(policy):
                position = model.at.table.position + 1
                model.at = with_policy(model.at, POLICIES[policy], position=position)
            case NextSecond():
                await next_second(model.windows, clock)
    await next_second(model.windows, clock)
    _check(model)


def _check(model: Model) -> None:
    log = model.windows._log
    assert isinstance(log, MemoryLog)
    requests: Counter[tuple[int, str]] = Counter()
    errors: Counter[tuple[int, str, str]] = Counter()
    units: Counter[tuple[int, str, str]] = Counter()
    in_flight: dict[tuple[int, str], int] = {}
    for window in (recorded.event for recorded in log._recorded):
        for version, seen in window.versions.items():
            where = (window.policy, version)
            requests[where] += seen.requests
            errors.update({(*where, code): count for code, count in seen.errors.items()})
            counted = msgspec.structs.asdict(seen.units)
            units.update({(*where, kind): count for kind, count in counted.items()})
            assert sum(seen.latency.bins.values() if seen.latency else ()) == (
                seen.requests - sum(seen.errors.values())
            )
            in_flight[where] = seen.in_flight
    assert +requests == model.requests
    assert errors == model.errors
    assert +units == model.units
    assert set(msgspec.structs.asdict(Units())) == {
        "seen",
        "errors",
        "timeouts",
        "slow",
        "bad",
    }
    still = Counter(request.where for request in model.under_way)
    assert {where: count for where, count in in_flight.items() if count} == still

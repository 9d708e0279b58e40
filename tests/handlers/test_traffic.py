"""Windows: one per endpoint and second, each once on the log, whatever the log does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from events import AppendOutcomeUnknown, LogUnavailable
from events.catalogue.endpoints import AlertRaised, Policy
from events.catalogue.traffic import LatencySketch, WindowObserved
from events.errors import EventTooLarge
from events.log import ALL_TRAFFIC
from events.memory import MemoryLog
from handlers.routes import Route
from handlers.traffic import totals
from handlers.traffic import windows as windows_module
from handlers.traffic.passages import Passage
from handlers.traffic.tallies import RELATIVE_ACCURACY, VersionTally, latency_sketch
from handlers.traffic.totals import LATENCY_SECONDS
from handlers.traffic.windows import Windows
from tests.handlers.passing import (
    CHAT_ROUTE,
    START,
    Seconds,
    after,
    begun,
    next_second,
    route,
    with_policy,
)
from tests.handlers.world import eventually, running


class Log(MemoryLog):
    """A log that fails as it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.written_first = False
        self.attempts = 0
        self.slow: asyncio.Event | None = None

    async def append_all(self, appends: Any, *, metadata: Any = None) -> int:
        self.attempts += 1
        if self.slow is not None:
            await self.slow.wait()
        if self.error is not None:
            if self.written_first:
                await super().append_all(appends, metadata=metadata)
            raise self.error
        return await super().append_all(appends, metadata=metadata)


class Rig:
    def __init__(self) -> None:
        self.clock = Seconds()
        self.log = Log()
        self.windows = Windows(gateway="g1", log=self.log, clock=self.clock)

    def begin(self, at: Route | None = None, **said: Any) -> Passage:
        return begun(self.windows, at or CHAT_ROUTE, **said)

    def answer(
        self, latency_ms: float = 5.0, *, at: Route | None = None, tokens: int = 0, **said: Any
    ) -> None:
        self.begin(at, **said).answered(latency_ms=latency_ms, tokens=tokens)

    def fail(self, code: str, **said: Any) -> None:
        self.begin(**said).failed(code=code)

    async def next_second(self) -> None:
        await next_second(self.windows, self.clock)

    def written(self) -> list[WindowObserved]:
        found = [recorded.event for recorded in self.log._recorded]
        assert all(isinstance(event, WindowObserved) for event in found)
        return found


async def test_a_window_for_each_endpoint_and_second():
    rig = Rig()
    rig.answer(tokens=3)
    rig.answer(tokens=4)
    rig.answer(at=route("search"))
    await rig.next_second()
    rig.answer()
    await rig.next_second()
    entities = [recorded.entity.id for recorded in rig.log._recorded]
    assert entities == ["chat", "search", "chat"]
    first, _, last = rig.written()
    assert first.start == datetime.fromtimestamp(START, UTC)
    assert last.start == datetime.fromtimestamp(START + 1, UTC)
    assert (first.gateway, first.seconds) == ("g1", 1)
    assert (first.versions["1.0.0"].requests, first.versions["1.0.0"].tokens) == (2, 7)
    assert {r.entity.subject for r in rig.log._recorded} == {
        "obs.acme.traffic.chat",
        "obs.acme.traffic.search",
    }


async def test_a_second_without_requests_leaves_no_window():
    rig = Rig()
    await rig.next_second()
    await rig.next_second()
    assert rig.log.attempts == 0


async def test_failures_are_counted_by_code_and_have_no_latency():
    rig = Rig()
    for code in ("timeout", "unavailable", "timeout"):
        rig.fail(code)
    await rig.next_second()
    [window] = rig.written()
    seen = window.versions["1.0.0"]
    assert (seen.requests, seen.errors) == (3, {"timeout": 2, "unavailable": 1})
    assert seen.latency is None


async def test_answers_and_failures_of_a_version_are_in_one_window():
    rig = Rig()
    rig.answer(7.0)
    rig.fail("runtime_failed")
    rig.answer(9.0, version="2.0.0")
    await rig.next_second()
    [window] = rig.written()
    assert set(window.versions) == {"1.0.0", "2.0.0"}
    seen = window.versions["1.0.0"]
    assert (seen.requests, sum(seen.errors.values())) == (2, 1)
    assert seen.latency is not None
    assert (sum(seen.latency.bins.values()), seen.latency.min_ms) == (1, 7.0)


def quantile(sketch: LatencySketch, q: float) -> float:
    """By what the event's documentation says of its bins, and by nothing else."""
    gamma = (1 + sketch.relative_accuracy) / (1 - sketch.relative_accuracy)
    rank = q * (sketch.zeros + sum(sketch.bins.values()) - 1)
    below = sketch.zeros
    if rank < below:
        return 0.0
    for index in sorted(sketch.bins):
        below += sketch.bins[index]
        if rank < below:
            return 2 * gamma**index / (gamma + 1)
    raise AssertionError("no such rank")


@settings(deadline=None)
@given(
    latencies=st.lists(
        st.one_of(st.just(0.0), st.floats(min_value=1e-3, max_value=1e7)), min_size=1, max_size=200
    ),
    q=st.floats(min_value=0.0, max_value=1.0),
)
def test_quantiles_of_a_sketch_are_within_the_stated_accuracy(latencies, q):
    tally = VersionTally()
    for latency in latencies:
        tally.sketch.add(latency)
    sketch = latency_sketch(tally.sketch)
    exact = sorted(latencies)[int(q * (len(latencies) - 1))]
    assert abs(quantile(sketch, q) - exact) <= RELATIVE_ACCURACY * exact * (1 + 1e-9)
    assert sketch.relative_accuracy == RELATIVE_ACCURACY
    assert sketch.zeros + sum(sketch.bins.values()) == len(latencies)
    assert (sketch.min_ms, sketch.max_ms) == (min(latencies), max(latencies))
    assert sketch.sum_ms == pytest.approx(sum(latencies))


@settings(deadline=None)
@given(
    first=st.lists(st.floats(min_value=1e-3, max_value=1e6), min_size=1),
    second=st.lists(st.floats(min_value=1e-3, max_value=1e6), min_size=1),
)
def test_sketches_are_merged_by_adding_their_bins(first, second):
    def sketch(latencies):
        tally = VersionTally()
        for latency in latencies:
            tally.sketch.add(latency)
        return latency_sketch(tally.sketch)

    one, two, both = sketch(first), sketch(second), sketch(first + second)
    indices = one.bins.keys() | two.bins.keys()
    assert both.bins == {i: one.bins.get(i, 0) + two.bins.get(i, 0) for i in indices}


async def test_a_window_whose_outcome_is_unknown_is_sent_again_and_is_there_once():
    rig = Rig()
    rig.log.error, rig.log.written_first = AppendOutcomeUnknown("no answer"), True
    rig.answer()
    await rig.next_second()
    assert len(rig.written()) == 1
    await rig.next_second()
    rig.log.error = None
    await rig.next_second()
    await rig.next_second()
    assert len(rig.written()) == 1
    assert rig.log.attempts == 3


async def test_while_the_log_is_away_every_second_keeps_its_own_window():
    rig = Rig()
    rig.log.error = LogUnavailable("away")
    for _ in range(3):
        rig.answer()
        await rig.next_second()
    assert rig.written() == []
    rig.log.error = None
    await rig.next_second()
    assert [int(window.start.timestamp()) - START for window in rig.written()] == [0, 1, 2]
    assert rig.windows.dropped == 0


async def test_what_waits_for_the_log_is_bounded_and_the_oldest_goes_first(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(windows_module, "WINDOWS_WAITING_MAX", 2)
    rig = Rig()
    rig.log.error = LogUnavailable("away")
    for _ in range(5):
        rig.answer()
        await rig.next_second()
    assert rig.windows.dropped == 3
    assert len(rig.windows._waiting) == 2
    rig.log.error = None
    await rig.next_second()
    assert [int(window.start.timestamp()) - START for window in rig.written()] == [3, 4]


async def test_a_window_the_log_will_never_take_is_dropped_and_counted():
    rig = Rig()
    rig.answer()
    rig.log.error = EventTooLarge(None, 2_000_000, 1_000_000)
    await rig.next_second()
    assert rig.windows.dropped == 1
    rig.log.error = None
    await rig.next_second()
    assert rig.log.attempts == 1


async def test_the_last_window_is_published_at_the_end():
    rig = Rig()
    rig.clock.at = START + 0.001
    async with running(rig.windows.run()) as task:
        await asyncio.sleep(0)
        rig.answer()
        task.cancel()
        await asyncio.wait([task])
    [window] = rig.written()
    assert window.versions["1.0.0"].requests == 1


async def test_a_window_on_its_way_at_the_end_is_on_the_log_once():
    rig = Rig()
    rig.log.slow = asyncio.Event()
    rig.clock.at = START + 0.999
    async with running(rig.windows.run()) as task:
        rig.answer()
        await eventually(lambda: rig.log.attempts == 1)
        task.cancel()
        await eventually(lambda: rig.log.attempts == 2)
        rig.log.slow.set()
        await asyncio.wait([task])
    assert len(rig.written()) == 1


async def test_a_slow_log_makes_no_window_longer_than_its_second():
    rig = Rig()
    rig.log.slow = asyncio.Event()
    rig.clock.at = START + 0.999
    async with running(rig.windows.run()):
        rig.answer()
        await eventually(lambda: rig.log.attempts == 1)
        rig.clock.at = START + 1.999
        rig.answer()
        rig.windows._close_window()
        rig.clock.at = START + 2.999
        rig.answer()
        rig.log.slow.set()
        await eventually(lambda: len(rig.written()) >= 2)
    counted = {
        int(window.start.timestamp()) - START: window.versions["1.0.0"].requests
        for window in rig.written()
    }
    assert counted == {0: 1, 1: 1, 2: 1}


async def test_windows_go_on_when_the_clock_is_set_back():
    rig = Rig()
    rig.answer()
    rig.clock.at -= 3_600
    rig.windows._close_window()
    rig.answer()
    await rig.next_second()
    starts = [int(window.start.timestamp()) for window in rig.written()]
    assert starts == [START, START - 3_600]


async def test_traffic_is_read_by_its_own_pattern():
    rig = Rig()
    rig.answer()
    await rig.next_second()
    async for recorded in rig.log.subscribe(ALL_TRAFFIC):
        assert recorded.actor == "gateway:g1"
        break


async def test_a_second_in_which_the_policy_changed_has_a_window_for_each():
    rig = Rig()
    rig.answer()
    changed = with_policy(CHAT_ROUTE, Policy(split={"2.0.0": 1.0}), position=9)
    rig.answer(at=changed, version="2.0.0")
    rig.answer(at=changed, version="2.0.0")
    await rig.next_second()
    counted = {window.policy: window.versions for window in rig.written()}
    assert {window.start for window in rig.written()} == {datetime.fromtimestamp(START, UTC)}
    assert {policy: list(versions) for policy, versions in counted.items()} == {
        1: ["1.0.0"],
        9: ["2.0.0"],
    }
    assert (counted[1]["1.0.0"].requests, counted[9]["2.0.0"].requests) == (1, 2)


async def test_a_request_counts_under_the_policy_that_routed_it_however_late_it_ends():
    rig = Rig()
    late = rig.begin()
    changed = with_policy(CHAT_ROUTE, Policy(split={"2.0.0": 1.0}), position=9)
    rig.answer(at=changed, version="2.0.0")
    await rig.next_second()
    late.answered(latency_ms=1_000.0)
    await rig.next_second()
    told = [
        (int(window.start.timestamp()) - START, window.policy, version, seen.requests)
        for window in rig.written()
        for version, seen in window.versions.items()
    ]
    assert sorted(told) == [(0, 1, "1.0.0", 0), (0, 9, "2.0.0", 1), (1, 1, "1.0.0", 1)]


async def test_an_event_that_leaves_the_policy_leaves_the_window():
    rig = Rig()
    rig.answer()
    alerted = after(
        CHAT_ROUTE, AlertRaised(alert_id="a1", kind="manual", severity="warning"), position=9
    )
    rig.answer(at=alerted)
    await rig.next_second()
    [window] = rig.written()
    assert (window.policy, window.versions["1.0.0"].requests) == (1, 2)


async def test_requests_that_nobody_answers_leave_a_window_every_second_until_they_end():
    rig = Rig()
    stuck = [rig.begin(), rig.begin()]
    await rig.next_second()
    await rig.next_second()
    stuck.pop().failed(code="timeout")
    await rig.next_second()
    stuck.pop().left()
    await rig.next_second()
    await rig.next_second()
    told = [(w.versions["1.0.0"].requests, w.versions["1.0.0"].in_flight) for w in rig.written()]
    assert told == [(0, 2), (0, 2), (1, 1), (0, 0)], "the last one says that nobody waits"


async def test_a_request_that_begins_and_is_left_in_one_second_is_no_request():
    rig = Rig()
    rig.begin().left()
    await rig.next_second()
    [window] = rig.written()
    assert (window.versions["1.0.0"].requests, window.versions["1.0.0"].in_flight) == (0, 0)
    await rig.next_second()
    assert len(rig.written()) == 1


async def test_what_is_in_flight_is_told_per_version():
    rig = Rig()
    rig.begin()
    rig.begin(version="2.0.0")
    changed = with_policy(CHAT_ROUTE, Policy(split={"2.0.0": 1.0}), position=9)
    rig.begin(changed, version="2.0.0")
    await rig.next_second()
    told = {
        (window.policy, version): seen.in_flight
        for window in rig.written()
        for version, seen in window.versions.items()
    }
    assert told == {(1, "1.0.0"): 1, (1, "2.0.0"): 1, (9, "2.0.0"): 1}


async def test_the_sums_are_those_of_the_windows():
    rig = Rig()
    for latency_ms in (0.0, 0.4, 3.0, 3.0, 70_000.0):
        rig.answer(latency_ms)
        await rig.next_second()
    rig.fail("timeout")
    await rig.next_second()
    total = rig.windows.totals.versions["acme", "chat", "1.0.0"]
    assert total.latencies.sum_s == pytest.approx(70.0064)
    by_bound = dict(zip((*LATENCY_SECONDS, None), total.latencies.counts, strict=True))
    assert {bound: count for bound, count in by_bound.items() if count} == {
        0.001: 2,
        0.005: 2,
        None: 1,
    }


async def test_of_too_many_versions_those_without_traffic_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(totals, "TOTALS_MAX", 2)
    rig = Rig()
    for version in ("1.0.0", "2.0.0", "1.0.0", "3.0.0"):
        rig.answer(version=version)
        await rig.next_second()
    assert [version for _, _, version in rig.windows.totals.versions] == ["1.0.0", "3.0.0"]

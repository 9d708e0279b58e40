"""Checks: what is asked about which answers, what is counted, and what never is."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from structlog.testing import CapturingLogger

from events import Position
from events.catalogue.endpoints import Analysis, Policy, RolloutAdvanced, RolloutStarted
from events.catalogue.traffic import CheckWindow, Units, VersionWindow
from events.memory import MemoryLog
from handlers import checks
from handlers.checks import Checks
from handlers.routes import Route
from handlers.traffic.passages import Passage
from handlers.traffic.windows import Windows
from tests.handlers.passing import BOTH, Seconds, after, begun, next_second, route
from tests.handlers.test_units import ALONE, SOON, STEPS
from tests.handlers.world import eventually

QUALITY = Analysis(metric="quality", check="right")


def right(inputs: Any, outputs: Any) -> bool:
    return bool(inputs == outputs)


def rolling(analysis: Analysis = QUALITY) -> Route:
    """In the first step of a rollout from 1.0.0 to 2.0.0, whose policy is of position 2."""
    return after(
        route(policy=ALONE),
        RolloutStarted(
            rollout_id="r1",
            baseline="1.0.0",
            candidate="2.0.0",
            steps=STEPS,
            analysis=analysis,
            hold_until=SOON,
            policy=BOTH,
        ),
        position=2,
    )


def advanced(before: Route) -> Route:
    """In the second step, whose policy is of position 3."""
    return after(
        before,
        RolloutAdvanced(
            rollout_id="r1",
            step=1,
            reason="passed",
            hold_until=SOON,
            policy=Policy(split={"1.0.0": 50.0, "2.0.0": 50.0}),
        ),
        position=3,
    )


class Rig:
    """Answers that are checked, and what each second's windows say of it."""

    def __init__(self, function: Any = right, *, at: Route | None = None) -> None:
        self.at = rolling() if at is None else at
        self.clock = Seconds()
        self.log = MemoryLog()
        self.windows = Windows(gateway="g1", log=self.log, clock=self.clock)
        self.checks = Checks({"right": function})

    def begin(self, key: int | None = None, *, version: str = "1.0.0", **said: Any) -> Passage:
        return begun(self.windows, self.at, version=version, key=key, **said)

    def answer(self, outputs: Any, key: int | None = None, **said: Any) -> None:
        """To the inputs 1: outputs 1 are right."""
        passage = self.begin(key, **said)
        passage.answered(latency_ms=1.0)
        self.checks.check(passage, inputs=1, outputs=outputs)

    async def settled(self) -> None:
        await eventually(lambda: self.checks.under_way == 0)

    async def told(self) -> dict[tuple[Position, str], VersionWindow]:
        """(policy, version) -> its window of the second that is over now, when all is checked."""
        await self.settled()
        told = len(self.log._recorded)
        await next_second(self.windows, self.clock)
        return {
            (window.policy, version): seen
            for window in (recorded.event for recorded in self.log._recorded[told:])
            for version, seen in window.versions.items()
        }

    async def checked(self) -> dict[tuple[Position, str], CheckWindow]:
        """What is told of checks, where there were any."""
        told = await self.told()
        return {where: seen.checks for where, seen in told.items() if seen.checks is not None}


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What a function waits for; open when the test is over."""
    let = threading.Event()
    yield let
    let.set()


async def test_answers_are_found_good_or_bad_and_counted_for_their_version():
    rig = Rig()
    for outputs in (1, 1, 2):
        rig.answer(outputs)
    rig.answer(2, version="2.0.0")
    told = await rig.told()
    one, two = told[2, "1.0.0"], told[2, "2.0.0"]
    assert one.checks == CheckWindow(checked=3, bad=1, keys=3, bad_keys=1)
    assert one.units == Units(seen=3, bad=1)
    assert two.checks == CheckWindow(checked=1, bad=1, keys=1, bad_keys=1)
    assert two.units == Units(seen=1, bad=1)
    assert (one.requests, one.errors) == (3, {}), "a bad answer is an answer"


async def test_a_key_is_bad_once_however_many_of_its_answers_are():
    rig = Rig()
    for outputs in (1, 2, 2):
        rig.answer(outputs, 7)
        await rig.settled()
    told = (await rig.told())[2, "1.0.0"]
    assert told.units == Units(seen=1, bad=1)
    assert told.checks == CheckWindow(checked=3, bad=2, keys=1, bad_keys=0)


async def test_a_key_counts_with_its_first_answer_of_every_step_until_it_was_bad():
    rig = Rig()
    for key in (7, 8, 9):
        rig.answer(1 if key < 9 else 2, key)
        await rig.settled()
        rig.answer(1, key)
    assert (await rig.checked())[2, "1.0.0"] == CheckWindow(checked=6, bad=1, keys=3, bad_keys=1)
    rig.at = advanced(rig.at)
    for key in (7, 8, 9):
        rig.answer(2 if key > 7 else 1, key)
    told = (await rig.told())[3, "1.0.0"]
    assert told.checks == CheckWindow(checked=3, bad=2, keys=2, bad_keys=1)
    assert told.units == Units(bad=1), "the second bad answer of key 9 counts for nothing"


async def test_a_check_that_ends_later_counts_then_and_under_the_policy_of_its_request(
    gate: threading.Event,
):
    def waits(inputs: Any, outputs: Any) -> bool:
        gate.wait()
        return False

    rig = Rig(waits)
    rig.answer(1, 7)
    await next_second(rig.windows, rig.clock)
    [first] = [recorded.event for recorded in rig.log._recorded]
    assert first.versions["1.0.0"].requests == 1
    assert first.versions["1.0.0"].checks is None
    rig.at = advanced(rig.at)
    rig.begin(8).answered(latency_ms=1.0)
    await next_second(rig.windows, rig.clock)
    gate.set()
    told = await rig.told()
    late = told[2, "1.0.0"]
    assert (late.requests, late.units) == (0, Units(bad=1))
    assert late.checks == CheckWindow(checked=1, bad=1, keys=1, bad_keys=1)
    assert await rig.told() == {}, "it is told once"


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """What is said of checks."""
    logger = CapturingLogger()
    monkeypatch.setattr(checks, "_log", logger)
    return logger


def raises(inputs: Any, outputs: Any) -> bool:
    raise KeyError("score")


def exits(inputs: Any, outputs: Any) -> bool:
    raise SystemExit(1)


@pytest.mark.parametrize("function", [raises, exits, lambda *_: 0, lambda *_: None])
async def test_a_function_that_raises_or_returns_no_bool_makes_no_answer_bad(
    function: Any, logged: CapturingLogger
):
    rig = Rig(function)
    rig.answer(2, 7)
    rig.answer(2, 7)
    told = (await rig.told())[2, "1.0.0"]
    assert told.checks == CheckWindow(failed=2)
    assert told.units == Units(seen=1)
    [line] = logged.calls
    assert (line.method_name, line.kwargs["check"]) == ("warning", "right")


async def test_a_function_that_this_gateway_does_not_know_makes_no_answer_bad():
    rig = Rig(at=rolling(Analysis(metric="quality", check="other")))
    rig.answer(2)
    assert await rig.checked() == {(2, "1.0.0"): CheckWindow(failed=1)}


async def test_what_cannot_be_copied_makes_no_answer_bad():
    rig = Rig()
    rig.answer(object())
    assert await rig.checked() == {(2, "1.0.0"): CheckWindow(failed=1)}


async def test_a_function_that_hangs_is_given_up(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checks, "CHECK_SECONDS", 0.02)
    monkeypatch.setattr(checks, "CHECKING_MAX", 1)
    monkeypatch.setattr(checks, "CHECK_WAITS_SECONDS", 0.02)
    rig = Rig(lambda *_: gate.wait())
    rig.answer(2)
    await rig.settled()
    rig.answer(2)
    assert await rig.checked() == {(2, "1.0.0"): CheckWindow(failed=2)}
    monkeypatch.setattr(checks, "CHECK_SECONDS", math.inf)
    monkeypatch.setattr(checks, "CHECK_WAITS_SECONDS", math.inf)
    gate.set()
    rig.answer(2)
    checked = await rig.checked()
    assert checked == {(2, "1.0.0"): CheckWindow(checked=1, keys=1)}, "the thread came back"


async def test_what_finds_no_room_is_dropped_and_counted(
    gate: threading.Event, monkeypatch: pytest.MonkeyPatch, logged: CapturingLogger
):
    monkeypatch.setattr(checks, "CHECKS_MAX", 2)
    rig = Rig(lambda *_: gate.wait())
    for _ in range(5):
        rig.answer(2)
    assert rig.checks.under_way == 2
    assert [line.args for line in logged.calls] == [("an answer found no room to be checked",)]
    gate.set()
    assert await rig.checked() == {(2, "1.0.0"): CheckWindow(checked=2, dropped=3, keys=2)}


async def test_answers_are_checked_beside_the_requests(gate: threading.Event):
    at_work = threading.Event()

    def waits(inputs: Any, outputs: Any) -> bool:
        at_work.set()
        return gate.wait()

    rig = Rig(waits)
    rig.answer(1)
    await eventually(at_work.is_set)
    rig.answer(1)
    assert rig.checks.under_way == 2
    gate.set()
    assert await rig.checked() == {(2, "1.0.0"): CheckWindow(checked=2, keys=2)}


async def test_a_function_gets_inputs_and_outputs_of_its_own():
    def meddles(inputs: Any, outputs: Any) -> bool:
        inputs.clear()
        outputs.clear()
        return True

    rig = Rig(meddles)
    passage = rig.begin()
    passage.answered(latency_ms=1.0)
    inputs, outputs = {"prompt": "Hello"}, {"choices": [1]}
    rig.checks.check(passage, inputs=inputs, outputs=outputs)
    await rig.settled()
    assert (inputs, outputs) == ({"prompt": "Hello"}, {"choices": [1]})


@pytest.mark.parametrize(
    "at", [rolling(Analysis()), rolling(Analysis(check="right")), route(), route(policy=ALONE)]
)
async def test_where_no_rollout_is_judged_by_quality_nothing_is_checked(at: Route):
    rig = Rig(at=at)
    rig.answer(2, 7)
    assert rig.checks.under_way == 0
    assert await rig.checked() == {}


async def test_what_is_no_unit_is_not_checked():
    rig = Rig()
    rig.answer(2, rule="beta users")
    standing_in = rig.begin(7).fall_back("2.0.0")
    standing_in.answered(latency_ms=1.0)
    rig.checks.check(standing_in, inputs=1, outputs=2)
    assert rig.checks.under_way == 0
    assert await rig.checked() == {}


async def test_a_gateway_that_ends_waits_for_no_check(gate: threading.Event):
    rig = Rig(lambda *_: gate.wait())
    rig.answer(2)
    await asyncio.sleep(0)
    await rig.checks.close()
    assert rig.checks.under_way == 0
    assert await rig.checked() == {}

"""Units: what a rollout's tests count, once for every key and kind of failure."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from events import Position
from events.catalogue.endpoints import (
    Analysis,
    Policy,
    RolledBack,
    RolloutAborted,
    RolloutAdvanced,
    RolloutStarted,
    Step,
)
from events.catalogue.traffic import Units
from events.memory import MemoryLog
from handlers.routes import Route
from handlers.traffic import units
from handlers.traffic.passages import Passage
from handlers.traffic.windows import Windows
from tests.handlers.passing import BOTH, Seconds, after, begun, next_second, route, with_policy

SOON = datetime(2026, 3, 1, 13, tzinfo=UTC)
STEPS = (Step(weight=5.0, hold_s=60.0), Step(weight=50.0, hold_s=60.0))
ALONE = Policy(split={"1.0.0": 1.0})


class Rig:
    """Windows, and the units in each second's."""

    def __init__(self, at: Route | None = None) -> None:
        self.at = at or route()
        self.clock = Seconds()
        self.log = MemoryLog()
        self.windows = Windows(gateway="g1", log=self.log, clock=self.clock)

    def begin(self, key: int | None = None, *, version: str = "1.0.0", **said: str) -> Passage:
        return begun(self.windows, self.at, version=version, key=key, **said)

    def answer(self, key: int | None = None, *, ms: float = 5.0, **said: str) -> None:
        self.begin(key, **said).answered(latency_ms=ms)

    def fail(self, key: int | None = None, *, code: str = "runtime_failed", **said: str) -> None:
        self.begin(key, **said).failed(code=code)

    async def units(self) -> dict[tuple[Position, str], Units]:
        """(policy, version) -> its units, of the second that is over now; without those of none."""
        told = len(self.log._recorded)
        await next_second(self.windows, self.clock)
        return {
            (window.policy, version): seen.units
            for window in (recorded.event for recorded in self.log._recorded[told:])
            for version, seen in window.versions.items()
            if seen.units != Units()
        }


def rolling(*, max_latency_ms: float | None = None) -> Route:
    """In the first step of a rollout from 1.0.0 to 2.0.0, whose policy is of position 2."""
    return after(
        route(policy=ALONE),
        RolloutStarted(
            rollout_id="r1",
            baseline="1.0.0",
            candidate="2.0.0",
            steps=STEPS,
            analysis=Analysis(max_latency_ms=max_latency_ms),
            hold_until=SOON,
            policy=BOTH,
        ),
        position=2,
    )


async def test_a_key_is_seen_once_however_often_and_long_it_comes():
    rig = Rig()
    rig.answer(7)
    rig.answer(7)
    rig.answer(8)
    assert await rig.units() == {(1, "1.0.0"): Units(seen=2)}
    rig.answer(7)
    assert await rig.units() == {}


async def test_a_request_without_a_key_is_a_unit_of_its_own():
    rig = Rig()
    rig.answer()
    rig.answer()
    rig.fail()
    assert await rig.units() == {(1, "1.0.0"): Units(seen=3, errors=1)}


async def test_a_key_counts_once_for_each_kind_of_failure():
    rig = Rig()
    rig.fail(7)
    rig.fail(7)
    rig.fail(7, code="timeout")
    rig.fail(7, code="timeout")
    assert await rig.units() == {(1, "1.0.0"): Units(seen=1, errors=1, timeouts=1)}
    rig.fail(7)
    rig.fail(7, code="timeout")
    assert await rig.units() == {}


async def test_a_time_out_is_an_error_too():
    rig = Rig()
    rig.fail(7, code="timeout")
    rig.fail(code="timeout")
    assert await rig.units() == {(1, "1.0.0"): Units(seen=2, errors=2, timeouts=2)}


async def test_a_key_is_seen_when_it_begins_and_has_failed_when_it_ends():
    rig = Rig()
    passage = rig.begin(7)
    assert await rig.units() == {(1, "1.0.0"): Units(seen=1)}
    passage.failed(code="runtime_failed")
    assert await rig.units() == {(1, "1.0.0"): Units(errors=1)}


async def test_a_request_that_nobody_waited_for_was_seen_and_has_not_failed():
    rig = Rig()
    rig.begin(7).left()
    rig.answer(7)
    assert await rig.units() == {(1, "1.0.0"): Units(seen=1)}


async def test_weights_may_change_and_a_key_stays_counted():
    rig = Rig()
    rig.fail(7)
    rig.at = with_policy(rig.at, Policy(split={"1.0.0": 50.0, "2.0.0": 50.0}), position=2)
    rig.fail(7, version="2.0.0")
    rig.answer(8, version="2.0.0")
    assert await rig.units() == {
        (1, "1.0.0"): Units(seen=1, errors=1),
        (2, "2.0.0"): Units(seen=1),
    }


async def test_a_key_seen_under_one_version_may_fail_under_the_other():
    rig = Rig()
    rig.answer(7)
    rig.at = with_policy(rig.at, Policy(split={"1.0.0": 1.0, "2.0.0": 99.0}), position=2)
    rig.fail(7, version="2.0.0")
    assert await rig.units() == {(1, "1.0.0"): Units(seen=1), (2, "2.0.0"): Units(errors=1)}


async def test_other_versions_share_and_every_key_is_new():
    rig = Rig()
    rig.fail(7)
    three = Policy(split={"1.0.0": 1.0, "2.0.0": 1.0, "3.0.0": 1.0})
    rig.at = with_policy(rig.at, three, position=2)
    rig.fail(7)
    assert await rig.units() == {
        (1, "1.0.0"): Units(seen=1, errors=1),
        (2, "1.0.0"): Units(seen=1, errors=1),
    }


async def test_a_version_of_weight_zero_does_not_share():
    rig = Rig()
    rig.answer(7)
    rig.at = with_policy(rig.at, Policy(split={**BOTH.split, "3.0.0": 0.0}), position=2)
    rig.answer(7)
    assert await rig.units() == {(1, "1.0.0"): Units(seen=1)}


async def test_a_request_of_before_fails_among_the_keys_of_before():
    rig = Rig()
    late = rig.begin(7)
    three = Policy(split={"1.0.0": 1.0, "2.0.0": 1.0, "3.0.0": 1.0})
    rig.at = with_policy(rig.at, three, position=2)
    rig.answer(7)
    late.failed(code="runtime_failed")
    rig.fail(7)
    assert await rig.units() == {
        (1, "1.0.0"): Units(seen=1, errors=1),
        (2, "1.0.0"): Units(seen=1, errors=1),
    }


async def test_what_a_rule_routes_is_no_unit():
    rig = Rig()
    rig.answer(7, rule="beta")
    rig.fail(7, rule="beta", code="timeout")
    rig.fail(rule="beta")
    assert await rig.units() == {}
    rig.fail(7)
    assert await rig.units() == {(1, "1.0.0"): Units(seen=1, errors=1)}


async def test_where_one_version_has_everything_and_nothing_rolls_there_are_no_units():
    rig = Rig(route(policy=ALONE))
    rig.fail(7)
    rig.answer()
    assert await rig.units() == {}


async def test_the_last_step_has_units_though_one_version_has_everything():
    rig = Rig(rolling())
    rig.answer(7)
    advanced = RolloutAdvanced(
        rollout_id="r1",
        step=1,
        reason="passed",
        hold_until=SOON,
        policy=Policy(split={"1.0.0": 0.0, "2.0.0": 100.0}),
    )
    rig.at = after(rig.at, advanced, position=3)
    rig.fail(7, version="2.0.0")
    assert await rig.units() == {
        (2, "1.0.0"): Units(seen=1),
        (3, "2.0.0"): Units(seen=1, errors=1),
    }


async def test_another_rollout_of_the_same_versions_begins_with_new_keys():
    rig = Rig(rolling())
    rig.answer(7)
    aborted = RolloutAborted(
        rollout_id="r1", baseline="1.0.0", candidate="2.0.0", step=0, reason="aborted"
    )
    back = RolledBack(from_versions=("2.0.0",), to_version="1.0.0", reason="", policy=ALONE)
    rig.at = after(after(rig.at, aborted, position=3), back, position=4)
    again = RolloutStarted(
        rollout_id="r2",
        baseline="1.0.0",
        candidate="2.0.0",
        steps=STEPS,
        analysis=Analysis(),
        hold_until=SOON,
        policy=BOTH,
    )
    rig.at = after(rig.at, again, position=5)
    rig.answer(7)
    assert await rig.units() == {(2, "1.0.0"): Units(seen=1), (5, "1.0.0"): Units(seen=1)}


async def test_an_answer_is_slow_once_per_key_beyond_the_rollouts_limit():
    rig = Rig(rolling(max_latency_ms=100.0))
    for ms in (100.0, 100.1, 250.0):
        rig.answer(7, ms=ms)
    rig.answer(8, ms=99.0)
    rig.answer(ms=101.0)
    rig.fail(9)
    assert await rig.units() == {(2, "1.0.0"): Units(seen=4, errors=1, slow=2)}


async def test_nothing_is_slow_when_nobody_said_from_when_on():
    rig = Rig(rolling())
    rig.answer(7, ms=1e9)
    assert await rig.units() == {(2, "1.0.0"): Units(seen=1)}


async def test_keys_that_do_not_fit_count_for_nothing_and_are_counted(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(units, "UNIT_KEYS_MAX", 3)
    rig = Rig()
    for key in range(5):
        rig.fail(key, code="timeout", version="2.0.0")
    rig.fail(1)
    rig.fail()
    assert await rig.units() == {
        (1, "2.0.0"): Units(seen=3, errors=3, timeouts=3),
        (1, "1.0.0"): Units(seen=1, errors=1),
    }
    totals = rig.windows.totals.versions
    assert totals["acme", "chat", "2.0.0"].units_left_out == 2
    assert totals["acme", "chat", "1.0.0"].units_left_out == 0


async def test_a_key_that_fits_goes_on_to_count_when_others_no_longer_do(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(units, "UNIT_KEYS_MAX", 1)
    rig = Rig()
    rig.answer(1)
    rig.answer(2)
    rig.fail(1)
    rig.fail(2)
    assert await rig.units() == {(1, "1.0.0"): Units(seen=1, errors=1)}


async def test_endpoints_do_not_share_their_room_or_their_keys(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(units, "UNIT_KEYS_MAX", 1)
    rig = Rig()
    rig.answer(7)
    rig.at = route("search")
    rig.answer(7)
    await rig.units()
    totals = rig.windows.totals.versions
    assert {which: total.units_left_out for which, total in totals.items()} == {
        ("acme", "chat", "1.0.0"): 0,
        ("acme", "search", "1.0.0"): 0,
    }


async def test_all_endpoints_together_have_bounded_room_and_get_it_back(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(units, "UNIT_KEYS_TOTAL_MAX", 2)
    rig = Rig()
    chat, search = rig.at, route("search", position=2)
    rig.answer(1)
    rig.at = search
    rig.answer(1)
    rig.answer(2)
    assert await rig.units() == {(1, "1.0.0"): Units(seen=1), (2, "1.0.0"): Units(seen=1)}
    rig.at = with_policy(chat, ALONE, position=3)
    rig.answer(1)
    rig.at = search
    rig.answer(2)
    assert await rig.units() == {(2, "1.0.0"): Units(seen=1)}


async def test_a_key_counts_at_most_once_at_each_gateway():
    one, other = Rig(), Rig()
    for gateway in (one, other, one, other):
        gateway.fail(7)
    for gateway in (one, other):
        assert await gateway.units() == {(1, "1.0.0"): Units(seen=1, errors=1)}

"""The fast rule: plain failure is seen in seconds, and nothing else is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import pytest
from scipy.stats import binom

from engine.analysis.bursts import (
    BURST_CHANCE_MAX,
    BURST_FAILURES_MIN,
    BURST_SECONDS,
    STALL_IN_FLIGHT_MIN,
    STALL_SECONDS,
    Alarm,
    Recent,
)
from events.catalogue.traffic import VersionWindow, WindowObserved

START = datetime(2026, 3, 1, tzinfo=UTC)


def seen(requests: int, failed: int = 0, *, code: str = "runtime_failed", in_flight: int = 0):
    errors = {code: failed} if failed else {}
    return VersionWindow(requests=requests, errors=errors, in_flight=in_flight)


def window(
    second: int, versions: Mapping[str, VersionWindow], *, policy: int = 7, gateway: str = "g1"
) -> WindowObserved:
    return WindowObserved(
        gateway=gateway,
        start=START + timedelta(seconds=second),
        versions=dict(versions),
        policy=policy,
    )


def alarm_after(*windows: WindowObserved, version: str = "2.0.0") -> Alarm | None:
    """After the last of them."""
    recent = Recent()
    for each in windows:
        recent.observe(each)
    return recent.alarm(version)


def test_a_version_that_fails_always_is_seen_with_its_fifth_failure():
    few = window(0, {"2.0.0": seen(BURST_FAILURES_MIN - 1, BURST_FAILURES_MIN - 1)})
    assert alarm_after(few) is None
    one_more = window(1, {"2.0.0": seen(1, 1)})
    alarm = alarm_after(few, one_more)
    assert alarm is not None
    assert alarm.kind == "error_burst"
    assert "5 of 5 requests" in alarm.detail


def test_half_of_the_requests_is_enough_and_less_is_not():
    assert alarm_after(window(0, {"2.0.0": seen(20, 10)})) is not None
    assert alarm_after(window(0, {"2.0.0": seen(20, 9)})) is None


def test_failures_are_forgotten_after_the_last_seconds():
    old = window(0, {"2.0.0": seen(4, 4)})
    assert alarm_after(old, window(int(BURST_SECONDS), {"2.0.0": seen(1, 1)})) is None
    assert alarm_after(old, window(int(BURST_SECONDS) - 1, {"2.0.0": seen(1, 1)})) is not None


def test_windows_of_several_gateways_add_up_in_any_order():
    early = window(0, {"2.0.0": seen(3, 3)}, gateway="g1")
    late = window(1, {"2.0.0": seen(3, 3)}, gateway="g2")
    assert alarm_after(early, late) is not None
    assert alarm_after(late, early) is not None


def test_a_version_is_not_blamed_when_the_others_fail_alike():
    everywhere = {"1.0.0": seen(100, 60), "2.0.0": seen(20, 20)}
    assert alarm_after(window(0, everywhere)) is None
    only_mine = {"1.0.0": seen(100, 40), "2.0.0": seen(20, 20)}
    assert alarm_after(window(0, only_mine)) is not None


def test_what_is_usual_is_learnt_from_before_the_switch():
    """Where one request in three fails anyway, half of twelve is bad luck."""
    healthy = [window(n, {"1.0.0": seen(60)}, policy=7) for n in range(10)]
    failing = [window(n, {"1.0.0": seen(60, 20)}, policy=7) for n in range(10)]
    half = window(11, {"2.0.0": seen(12, 6)}, policy=9)
    assert alarm_after(*healthy, half) is not None
    assert alarm_after(*failing, half) is None
    assert alarm_after(*failing, window(11, {"2.0.0": seen(20, 20)}, policy=9)) is not None


def test_what_was_usual_long_ago_is_forgotten():
    failing = window(0, {"1.0.0": seen(600, 300)}, policy=7)
    much_later = window(3_600, {"1.0.0": seen(0)}, policy=7)
    half = window(3_601, {"2.0.0": seen(20, 10)}, policy=9)
    assert alarm_after(failing, half) is None
    assert alarm_after(failing, much_later, half) is not None


@pytest.mark.parametrize("usual", [0.01, 0.05, 0.2, 0.5])
@pytest.mark.parametrize("requests", [5, 10, 40])
def test_a_version_as_good_as_the_others_is_hardly_ever_blamed(usual: float, requests: int):
    """Against the exact tail: what raises the alarm is as rare as is said."""
    others = [window(n, {"1.0.0": seen(1_000, round(1_000 * usual))}) for n in range(10)]
    alarming = [
        failed
        for failed in range(requests + 1)
        if alarm_after(*others, window(10, {"2.0.0": seen(requests, failed)})) is not None
    ]
    chance = sum(float(binom.pmf(failed, requests, usual)) for failed in alarming)
    assert chance <= BURST_CHANCE_MAX * 1.1


def test_a_version_is_not_blamed_for_nodes_that_are_away():
    assert alarm_after(window(0, {"2.0.0": seen(50, 50, code="unavailable")})) is None
    assert alarm_after(window(0, {"2.0.0": seen(50, 50, code="timeout")})) is not None


def test_windows_of_an_older_policy_count_for_nothing():
    before = window(0, {"2.0.0": seen(4, 4)}, policy=7)
    after = window(1, {"2.0.0": seen(4, 4)}, policy=9)
    assert alarm_after(before, after) is None
    assert alarm_after(after, before, before) is None
    assert alarm_after(after, before, window(2, {"2.0.0": seen(1, 1)}, policy=9)) is not None


def stalled(seconds: int, *, others: VersionWindow, waiting: int = STALL_IN_FLIGHT_MIN):
    mine = seen(0, in_flight=waiting)
    return [window(second, {"1.0.0": others, "2.0.0": mine}) for second in range(seconds)]


def test_no_answer_at_all_is_seen_while_the_others_answer():
    enough = int(STALL_SECONDS)
    alarm = alarm_after(*stalled(enough, others=seen(10)))
    assert alarm is not None
    assert alarm.kind == "no_answer"
    assert alarm_after(*stalled(enough - 1, others=seen(10))) is None


def test_a_slow_version_is_not_blamed_when_nobody_answers_faster_or_few_wait():
    enough = int(STALL_SECONDS)
    assert alarm_after(*stalled(enough, others=seen(0))) is None
    assert alarm_after(*stalled(enough, others=seen(10, 10))) is None
    few = STALL_IN_FLIGHT_MIN - 1
    assert alarm_after(*stalled(enough, others=seen(10), waiting=few)) is None


def test_one_answer_shows_that_it_answers():
    windows = stalled(int(STALL_SECONDS), others=seen(10))
    answered = window(5, {"1.0.0": seen(10), "2.0.0": seen(1, in_flight=9)})
    assert alarm_after(*windows[:-1], answered, windows[-1]) is None

"""Two versions side by side: what windows of any span say about them."""

from __future__ import annotations

import msgspec
import pytest

from engine.analysis import Comparison, compare
from engine.analysis.means import SAMPLES_MIN
from events.catalogue.traffic import CheckWindow, Units, VersionWindow, WindowObserved
from tests.analysis.windows import NOTHING, sketch, version, window

SOME = [float(latency) for latency in range(1, 1_001)]


def compared(*windows: WindowObserved) -> Comparison:
    return compare(windows, baseline="1", candidate="2")


def test_counts_latencies_and_tokens_of_each_version_are_added_up() -> None:
    first = VersionWindow(
        requests=600,
        errors={"timeout": 2, "runtime_failed": 3},
        latency=sketch(SOME[:500]),
        tokens=70,
    )
    second = VersionWindow(
        requests=510, errors={"timeout": 10}, latency=sketch(SOME[500:]), tokens=30
    )
    found = compared(window(first), window(second, gateway="g2"), window(two=first)).baseline
    assert (found.version, found.requests, found.errors, found.tokens) == ("1", 1_110, 15, 100)
    assert found.errors_by_code == {"runtime_failed": 3, "timeout": 12}
    assert found.error_rate == pytest.approx(15 / 1_110)
    assert found.mean_ms == pytest.approx(500.5)
    assert (found.p50_ms, found.p95_ms, found.p99_ms) == (
        pytest.approx(500, rel=0.02),
        pytest.approx(950, rel=0.02),
        pytest.approx(990, rel=0.02),
    )


def test_only_windows_that_hold_one_of_both_are_counted_with_their_gateways() -> None:
    other = WindowObserved(gateway="g9", start=window().start, versions={"3": version(5)}, policy=9)
    found = compared(window(version(5)), window(two=version(5), gateway="g2", policy=2), other)
    assert (found.windows, found.gateways, found.policies) == (2, ("g1", "g2"), 2)
    assert "split changed" in found.detail
    assert "split changed" not in compared(window(version(5), version(5))).detail


@pytest.mark.parametrize(
    ("candidate", "verdict"),
    [
        (version(2_000, 40), "pass"),
        (version(2_000, 200), "fail"),
        (version(100, 4), "inconclusive"),
        (version(0), "inconclusive"),
        (NOTHING, "inconclusive"),
    ],
)
def test_the_verdict_is_about_the_error_rate(candidate: VersionWindow, verdict: str) -> None:
    found = compared(window(version(18_000, 360), candidate))
    assert found.verdict == verdict
    assert found.detail
    if candidate.requests:
        assert found.error_rate.interval is not None and found.error_rate.estimate is not None
        low, high = found.error_rate.interval
        assert low < found.error_rate.estimate < high
        assert (low > 0) == (verdict == "fail")
    else:
        assert found.error_rate.interval is found.error_rate.estimate is None


def test_failures_of_few_keys_are_no_difference() -> None:
    found = compared(window(version(18_000, 360), version(2_000, 200, failing_keys=2)))
    assert found.verdict == "inconclusive"
    assert found.error_rate.estimate == pytest.approx(0.08)


def test_windows_from_before_keys_were_counted_are_compared_by_their_requests() -> None:
    old = window(
        version(18_000, 360, keys=0, failing_keys=0), version(2_000, 200, keys=0, failing_keys=0)
    )
    assert compared(old).verdict == "fail"


def test_mean_latencies_have_an_interval_once_there_are_enough_answers() -> None:
    fast = version(1_000, latency=sketch(SOME))
    slow = version(1_000, latency=sketch([latency + 200.0 for latency in SOME]))
    found = compared(window(fast, slow)).mean_latency_ms
    assert found.estimate == pytest.approx(200.0)
    assert found.interval is not None and 0.0 < found.interval[0] < 200.0 < found.interval[1]
    few = version(SAMPLES_MIN - 1, latency=sketch(SOME[: SAMPLES_MIN - 1]))
    assert compared(window(fast, few)).mean_latency_ms.interval is None


def test_no_windows_are_no_evidence() -> None:
    found = compared()
    assert (found.verdict, found.windows, found.gateways) == ("inconclusive", 0, ())
    assert found.baseline.p50_ms is found.baseline.error_rate is found.baseline.mean_ms is None
    read = msgspec.json.decode(msgspec.json.encode(found), type=Comparison)
    assert read == found


def checked(answers: int, bad: int) -> VersionWindow:
    checks = CheckWindow(checked=answers, bad=bad, keys=answers, bad_keys=bad)
    return VersionWindow(requests=answers, units=Units(seen=answers, bad=bad), checks=checks)


def test_answers_that_were_checked_are_compared_too_and_the_worse_verdict_counts() -> None:
    found = compared(window(checked(2_000, 100), checked(2_000, 300)))
    assert (found.candidate.checked, found.candidate.bad, found.candidate.bad_rate) == (
        2_000,
        300,
        0.15,
    )
    assert found.bad_rate.estimate == pytest.approx(0.1)
    assert found.verdict == "fail"
    assert "rate of bad answers is higher" in found.detail
    assert found.error_rate.interval is not None
    assert found.error_rate.interval[1] <= found.margin, "errors alone would pass"
    alike = compared(window(checked(20_000, 100), checked(20_000, 100)))
    assert alike.verdict == "pass"


def test_where_no_answer_was_checked_errors_alone_are_compared() -> None:
    found = compared(window(version(2_000), checked(2_000, 300)))
    assert (found.baseline.checked, found.baseline.bad_rate) == (0, None)
    assert (found.bad_rate.estimate, found.bad_rate.interval) == (None, None)
    assert found.verdict == "pass"

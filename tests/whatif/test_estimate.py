"""Windows at another share: cumulated, conserved, and only where something is known."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.whatif.estimate import TOGETHER_SECONDS_MAX, Estimates
from events.catalogue.traffic import LatencySketch, VersionWindow, WindowObserved
from tests.whatif.recorded import BEGIN, second

arms = st.tuples(st.integers(1, 50), st.integers(0, 50)).map(lambda arm: (arm[0], min(arm)))
busy = st.lists(st.tuples(arms, arms), min_size=1, max_size=30).map(
    lambda found: [second(i, base=base, new=new) for i, (base, new) in enumerate(found)]
)


def estimated(windows: list[WindowObserved], share: float) -> list[WindowObserved | None]:
    estimates = Estimates(windows, baseline="1.0.0", candidate="2.0.0")
    return [estimates.window(i, share=share, policy=7) for i in range(len(windows))]


def total(windows: Iterable[WindowObserved | None], version: str) -> tuple[int, int]:
    """Requests and failures."""
    seen = [w.versions[version] for w in windows if w is not None and version in w.versions]
    return sum(v.requests for v in seen), sum(sum(v.errors.values()) for v in seen)


def test_the_candidate_does_with_more_requests_what_it_did_with_fewer() -> None:
    windows = [second(i, base=(90, 9), new=(10, 1)) for i in range(10)]
    found = estimated(windows, 0.5)
    assert total(found, "2.0.0") == (500, 50)
    assert total(found, "1.0.0") == (500, 50)
    assert {window.policy for window in found if window is not None} == {7}


def test_fractions_are_kept_until_they_make_a_whole() -> None:
    windows = [second(i, base=(9, 0), new=(1, 1)) for i in range(100)]
    found = estimated(windows, 0.05)
    counts = [window.versions["2.0.0"].requests for window in found if window is not None]
    assert sum(counts) == 50
    assert set(counts) == {0, 1}
    assert total(found, "2.0.0") == (50, 50)


@given(busy, st.sampled_from([0.0, 0.01, 0.1, 0.333, 0.5, 0.9, 1.0]))
def test_requests_are_neither_made_nor_lost(windows: list[WindowObserved], share: float) -> None:
    recorded = sum(total(windows, version)[0] for version in ("1.0.0", "2.0.0"))
    found = estimated(windows, share)
    candidate, baseline = total(found, "2.0.0"), total(found, "1.0.0")
    assert candidate[0] == pytest.approx(recorded * share, abs=1.0)
    assert candidate[0] + baseline[0] == pytest.approx(recorded, abs=1.0)
    for window in found:
        assert window is not None
        for seen in window.versions.values():
            assert 0 <= sum(seen.errors.values()) <= seen.requests


@given(busy, st.floats(0.01, 1.0))
def test_the_same_windows_give_the_same_estimates(
    windows: list[WindowObserved], share: float
) -> None:
    assert estimated(windows, share) == estimated(windows, share)


def test_a_second_without_the_candidate_is_read_with_those_that_follow() -> None:
    windows = [second(0, base=(9, 0)), second(1, base=(9, 0)), second(2, base=(10, 0), new=(2, 1))]
    found = estimated(windows, 0.5)
    assert total(found, "2.0.0") == (15, 8)  # half of 30, and half of those


@pytest.mark.parametrize(("share", "known"), [(0.0, True), (0.5, False), (1.0, False)])
def test_a_candidate_that_is_not_seen_soon_is_unknown(share: float, known: bool) -> None:
    late = int(TOGETHER_SECONDS_MAX) + 1
    windows = [second(0, base=(10, 0)), second(late, base=(10, 0), new=(1, 0))]
    assert (estimated(windows, share)[0] is not None) == known


def test_a_second_without_any_request_needs_no_rates() -> None:
    (found,) = estimated([WindowObserved(gateway="g", start=BEGIN, versions={}, policy=1)], 0.5)
    assert found is not None
    assert found.versions == {}


def test_latencies_grow_with_the_requests_and_keep_their_mean() -> None:
    sketch = LatencySketch(
        relative_accuracy=0.01, bins={80: 4, 100: 1}, sum_ms=40.0, min_ms=4.0, max_ms=12.0
    )
    window = WindowObserved(
        gateway="g",
        start=BEGIN,
        versions={
            "1.0.0": VersionWindow(requests=15),
            "2.0.0": VersionWindow(requests=5, latency=sketch),
        },
        policy=1,
    )
    (found,) = estimated([window], 0.5)
    assert found is not None
    latency = found.versions["2.0.0"].latency
    assert latency is not None
    assert latency.bins == {80: 8, 100: 2}
    assert latency.sum_ms == pytest.approx(80.0)

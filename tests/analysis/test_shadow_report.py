"""What shadows did: how often they agree, and how much slower they are."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from engine.analysis import shadow_report
from events.catalogue.traffic import ShadowWindow
from tests.analysis.windows import sketch, window

COPIED = [float(latency) for latency in range(1, 101)]


def test_windows_of_a_shadow_are_added_up() -> None:
    first = ShadowWindow(
        mirrored=500,
        dropped=7,
        compared=490,
        agreed=480,
        errors={"runtime_failed": 3, "timeout": 1},
        latency=sketch([latency + 50.0 for latency in COPIED]),
        primary_latency=sketch(COPIED),
    )
    second = ShadowWindow(mirrored=510, compared=510, agreed=500, errors={"timeout": 2})
    [found] = shadow_report([window(shadow=first), window(shadow=second), window()])
    assert (found.version, found.mirrored, found.dropped) == ("2", 1_010, 7)
    assert (found.compared, found.agreed, found.errors) == (1_000, 980, 6)
    assert found.errors_by_code == {"runtime_failed": 3, "timeout": 3}
    assert found.disagreement_rate == pytest.approx(0.02)
    assert found.interval is not None and found.interval[0] < 0.02 < found.interval[1] < 0.05
    assert found.latency is not None
    assert found.latency.mean_ms == pytest.approx(50.0)
    assert found.latency.p50_ms == pytest.approx(50.0, abs=2.0)
    assert found.latency.p95_ms == pytest.approx(50.0, abs=4.0)


def test_versions_are_reported_apart_and_in_order() -> None:
    seen = window(shadow=ShadowWindow(mirrored=1))
    both = replace(seen, shadows={"9": ShadowWindow(mirrored=2), **seen.shadows})
    assert [(one.version, one.mirrored) for one in shadow_report([both])] == [("2", 1), ("9", 2)]


def test_copies_of_which_none_was_compared_have_no_rate() -> None:
    [found] = shadow_report([window(shadow=ShadowWindow(mirrored=5, dropped=5))])
    assert found.disagreement_rate is found.interval is found.latency is None


def test_without_shadows_there_is_nothing_to_report() -> None:
    assert shadow_report([]) == shadow_report([window()]) == []

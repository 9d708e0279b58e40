"""Under its own policy a rollout does what was recorded: moves, times, evidence, counts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.whatif import RecordedRollout, WhatIf, recorded_course, rerun
from events import Recorded
from events.catalogue.endpoints import Analysis, Step
from events.catalogue.traffic import WindowObserved
from events.recordings import told_at
from tests.logs.traffic import Scene
from tests.whatif.recorded import (
    GOLDEN,
    analyses,
    golden,
    recorded,
    scenes,
    step_lists,
    the_rollout,
)

STEPS = (Step(weight=50.0, hold_s=5.0), Step(weight=100.0, hold_s=5.0))
BAD = Scene(requests_per_s=30, failing={"2.0.0": 0.5})


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_rollout_under_its_own_policy_is_the_recorded_one(name: str) -> None:
    rollout = golden(name)
    assert rerun(rollout, WhatIf()) == recorded_course(rollout)
    spelt_out = WhatIf(steps=rollout.steps, analysis=rollout.analysis)
    assert rerun(rollout, spelt_out) == recorded_course(rollout)


@pytest.mark.slow
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 10_000), scene=scenes(), steps=step_lists(), analysis=analyses)
def test_any_rollout_under_its_own_policy_is_the_recorded_one(
    seed: int, scene: Scene, steps: tuple[Step, ...], analysis: Analysis
) -> None:
    rollout = the_rollout(recorded(f"seed-{seed}", scene, *steps, analysis=analysis))
    assert rerun(rollout, WhatIf()) == recorded_course(rollout)


def test_it_is_the_evidence_that_moves_it_and_not_the_record() -> None:
    """The same log, cut before what the rollout did: it does it again, out of the windows alone."""
    log = recorded("cut", BAD, *STEPS, analysis=Analysis())
    whole = the_rollout(log)
    end = whole.end
    assert end is not None
    cut = [each for each in log if not _is_later(each, end.time)]
    rollout = the_rollout(cut)
    assert rollout.moves == ()
    assert recorded_course(rollout).state == "running"
    found = rerun(rollout, WhatIf())
    assert (found.state, found.reason) == ("aborted", "failed")
    assert found.acts[-1].e_values == recorded_course(whole).acts[-1].e_values
    assert found.ended_after_s == pytest.approx(recorded_course(whole).ended_after_s, abs=0.5)


def test_evidence_that_says_otherwise_is_followed() -> None:
    """The record says that the candidate failed; the windows have not a single failure."""
    log = recorded("whitewashed", BAD, *STEPS, analysis=Analysis(margin=0.5))
    rollout = the_rollout(log)
    assert recorded_course(rollout).reason == "failed"
    clean = recorded("clean", Scene(requests_per_s=30), *STEPS, analysis=Analysis(margin=0.5))
    windows = [each for each in the_rollout(clean).windows if each.policy in _policies(rollout)]
    found = rerun(_with_windows(rollout, windows), WhatIf())
    assert found.reason != "failed"
    assert found != recorded_course(rollout)


def test_a_window_that_is_there_twice_counts_once() -> None:
    log = recorded("twice", BAD, *STEPS, analysis=Analysis())
    assert the_rollout([*log, *log[-20:]]).windows == the_rollout(log).windows


def test_a_gateway_whose_clock_is_seconds_behind_changes_nothing() -> None:
    scene = Scene(requests_per_s=30, failing={"2.0.0": 0.02})
    rollout = the_rollout(recorded("late clock", scene, *STEPS, analysis=Analysis(margin=0.5)))
    behind = [_earlier(window) for window in rollout.windows]
    assert rerun(_with_windows(rollout, behind), WhatIf()) == recorded_course(rollout)


def _is_later(recorded: Recorded, time: datetime) -> bool:
    return recorded.entity.aggregate in ("endpoint", "traffic") and told_at(recorded) >= time


def _policies(rollout: RecordedRollout) -> set[int]:
    return {phase.policy for phase in rollout.phases}


def _with_windows(rollout: RecordedRollout, windows: Sequence[WindowObserved]) -> RecordedRollout:
    return replace(rollout, windows=tuple(windows))


def _earlier(window: WindowObserved) -> WindowObserved:
    return replace(window, start=window.start - timedelta(seconds=2))

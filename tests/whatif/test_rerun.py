"""A recorded rollout under another policy: when it would have moved, and what is not known."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.whatif import Course, RecordedRollout, WhatIf, recorded_course, rerun
from events.catalogue.endpoints import Analysis, Step
from tests.logs.traffic import Scene
from tests.whatif.recorded import DEEDS, golden, recorded, second, the_rollout, written

LAX = WhatIf(
    steps=(Step(weight=30.0, hold_s=4.0), Step(weight=100.0, hold_s=4.0)),
    analysis=Analysis(alpha=0.001, margin=1.0),
)


def moves(course: Course) -> list[tuple[str, int, str]]:
    return [(act.action, act.step, act.reason) for act in course.acts]


def test_a_higher_alpha_finds_the_bad_candidate_earlier_and_a_lower_one_later() -> None:
    rollout = golden("judged-patiently")
    recorded = recorded_course(rollout).detected_after_s
    eager = rerun(rollout, WhatIf(analysis=Analysis(alpha=0.2))).detected_after_s
    assert eager is not None
    assert recorded is not None
    assert eager < recorded
    strict = rerun(rollout, WhatIf(analysis=Analysis(alpha=0.0001)))
    assert (strict.state, strict.unknown_from_s) == ("running", recorded)


def test_what_would_have_come_after_the_rollback_is_unknown_and_not_invented() -> None:
    rollout = golden("judged-rolled-back")
    ended = recorded_course(rollout).ended_after_s
    blind = rerun(rollout, WhatIf(analysis=Analysis(alpha=1e-9, margin=1.0)))
    assert (blind.state, blind.acts, blind.ended_after_s) == ("running", (), None)
    assert blind.unknown_from_s == ended
    assert blind.served.requests == recorded_course(rollout).served.requests


def test_a_lax_policy_would_have_let_the_bad_candidate_through() -> None:
    course = rerun(golden("judged-patiently"), LAX)
    assert moves(course) == [("advanced", 1, "passed"), ("completed", 1, "passed")]
    assert all(act.estimated for act in course.acts)
    assert course.served.estimated == course.served.requests > 0
    assert course.unknown_from_s is None


def test_smaller_holds_pass_earlier_at_the_same_weights() -> None:
    rollout = golden("judged-completed")
    quick = tuple(
        Step(weight=step.weight, hold_s=step.hold_s / 3, min_samples=10) for step in rollout.steps
    )
    recorded, course = recorded_course(rollout), rerun(rollout, WhatIf(steps=quick))
    assert course.state == recorded.state == "completed"
    assert course.ended_after_s is not None
    assert recorded.ended_after_s is not None
    assert course.ended_after_s < recorded.ended_after_s / 2
    assert not course.acts[0].estimated  # the first step is at the recorded weight
    assert course.acts[-1].estimated


def test_after_the_candidate_took_all_traffic_the_baseline_is_unknown() -> None:
    """The rollout went to 100 %; at 10 % for longer, someone would have asked the baseline."""
    rollout = golden("judged-completed")
    slow = WhatIf(steps=(Step(weight=10.0, hold_s=600.0),))
    course = rerun(rollout, slow)
    to_all = recorded_course(rollout).acts[1]
    assert to_all.weight == 100.0
    assert (course.state, course.acts) == ("running", ())
    assert course.unknown_from_s == pytest.approx(to_all.after_s, abs=1.0)


def test_at_full_weight_what_came_after_completion_is_known() -> None:
    rollout = golden("judged-completed")
    steps = (*rollout.steps[:2], Step(weight=100.0, hold_s=15.0))
    course = rerun(rollout, WhatIf(steps=steps))
    ended = recorded_course(rollout).ended_after_s
    assert course.state == "completed"
    assert course.served.estimated == 0
    assert course.ended_after_s is not None
    assert ended is not None
    assert course.ended_after_s > ended + 4.0


def test_what_is_inconclusive_is_dealt_with_as_the_other_policy_says() -> None:
    rollout = golden("judged-held")
    held = recorded_course(rollout).acts[0].after_s
    back = rerun(rollout, WhatIf(analysis=Analysis(on_inconclusive="rollback")))
    assert moves(back) == [("aborted", 0, "inconclusive")]
    assert back.ended_after_s == pytest.approx(held, abs=0.5)
    assert back.detected_after_s is None


def test_a_limit_of_latency_that_was_not_recorded_is_judged_by_estimates() -> None:
    scene = Scene(requests_per_s=60, latency={"2.0.0": 4.0})
    steps = (Step(weight=50.0, hold_s=10.0),)
    rollout = the_rollout(recorded("slow", scene, *steps, analysis=Analysis(margin=0.5)))
    assert recorded_course(rollout).state == "completed"
    course = rerun(rollout, WhatIf(analysis=Analysis(metric="latency", max_latency_ms=20.0)))
    assert (course.state, course.reason) == ("aborted", "failed")
    assert course.acts[-1].estimated
    assert course.served.estimated == 0


QUALITY = Analysis(metric="quality", check="right", margin=0.5)


def of_bad_answers() -> RecordedRollout:
    scene = Scene(requests_per_s=60, bad={"1.0.0": 0.1, "2.0.0": 0.6})
    steps = (Step(weight=50.0, hold_s=10.0),)
    return the_rollout(recorded("bad answers", scene, *steps, analysis=QUALITY))


def test_bad_answers_are_as_many_by_another_share() -> None:
    rollout = of_bad_answers()
    course = recorded_course(rollout)
    assert (course.state, course.reason) == ("aborted", "failed")
    assert course.acts[-1].outcomes["quality"] == "fail"
    other = rerun(rollout, WhatIf(steps=(Step(weight=70.0, hold_s=10.0),)))
    assert (other.state, other.reason) == ("aborted", "failed")
    assert other.acts[-1].outcomes["quality"] == "fail"
    assert other.acts[-1].estimated


def test_what_another_check_would_have_said_is_not_known() -> None:
    rollout = of_bad_answers()
    course = rerun(rollout, WhatIf(analysis=msgspec.structs.replace(QUALITY, check="other")))
    assert course.state == "running"
    assert course.unknown_from_s == recorded_course(rollout).ended_after_s


def test_people_do_what_they_did() -> None:
    scene = Scene(requests_per_s=30, deeds=[(4.0, DEEDS["pause"]), (20.0, DEEDS["resume"])])
    steps = (Step(weight=50.0, hold_s=10.0),)
    rollout = the_rollout(recorded("paused", scene, *steps, analysis=Analysis(margin=0.5)))
    course = rerun(rollout, WhatIf(steps=(Step(weight=50.0, hold_s=7.0),)))
    assert moves(course) == [
        ("held", 0, "paused"),
        ("resumed", 0, "resumed"),
        ("completed", 0, "passed"),
    ]
    resumed, completed = course.acts[1:]
    assert completed.after_s - resumed.after_s == pytest.approx(2.0, abs=1.1)  # 5 s in, 2 s left


def test_an_abort_by_people_ends_any_policy_at_that_time() -> None:
    scene = Scene(requests_per_s=30, deeds=[(9.5, DEEDS["abort"])])
    rollout = the_rollout(
        recorded("aborted", scene, Step(weight=50.0, hold_s=60.0), analysis=Analysis())
    )
    course = rerun(rollout, WhatIf(steps=(Step(weight=5.0, hold_s=60.0),)))
    assert (course.reason, course.ended_after_s) == ("aborted", 10.5)


def test_a_promotion_counts_from_a_step_of_the_same_weight_only() -> None:
    scene = Scene(requests_per_s=30, deeds=[(5.0, DEEDS["promote"])])
    steps = (Step(weight=20.0, hold_s=60.0), Step(weight=50.0, hold_s=60.0))
    rollout = the_rollout(recorded("promoted", scene, *steps, analysis=Analysis(margin=0.5)))
    same = rerun(rollout, WhatIf(steps=(steps[0], Step(weight=80.0, hold_s=60.0))))
    assert moves(same)[0] == ("advanced", 1, "promoted")
    other = rerun(rollout, WhatIf(steps=(Step(weight=10.0, hold_s=60.0), steps[1])))
    assert "promoted" not in {act.reason for act in other.acts}


def test_a_rollout_without_windows_is_held_and_never_passes() -> None:
    course = rerun(written([], seconds=100.0, hold_s=10.0), WhatIf())
    assert moves(course) == [("held", 0, "inconclusive")]
    assert (course.state, course.ended_after_s, course.unknown_from_s) == ("held", None, 100.0)


def test_a_hold_that_ends_after_the_log_is_not_looked_at() -> None:
    course = rerun(
        written([second(1, base=(9, 0), new=(9, 0))], seconds=9.0, hold_s=10.0), WhatIf()
    )
    assert (course.acts, course.unknown_from_s) == ((), 9.0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    failures=st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=5, max_size=40),
    alphas=st.tuples(st.floats(1e-6, 0.5), st.floats(1e-6, 0.5)).map(sorted),
)
def test_on_the_same_windows_a_lower_alpha_never_detects_earlier(
    failures: list[tuple[int, int]], alphas: list[float]
) -> None:
    """Guaranteed, for one step at the recorded weight: the evidence is the same, and the lower
    alpha asks for more of it."""
    windows = [
        second(number, base=(20, base), new=(20, new))
        for number, (base, new) in enumerate(failures)
    ]
    rollout = written(windows, seconds=len(windows) + 1.0)
    low, high = (
        rerun(rollout, WhatIf(analysis=Analysis(alpha=alpha))).detected_after_s for alpha in alphas
    )
    assert low is None or (high is not None and high <= low)

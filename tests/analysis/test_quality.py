"""Rollouts that are judged by the quality of answers: when they fail, pass, and neither."""

from __future__ import annotations

import pytest

from engine.analysis import Evidence, Judgement
from events.catalogue.endpoints import Analysis, Step, Verdict
from events.catalogue.traffic import VersionWindow, WindowObserved
from tests.analysis.windows import STEP, checked, evidence, verdict, version, window

QUALITY = Analysis(metric="quality", check="right")


def judged(*windows: WindowObserved, share: float = 0.5, step: Step = STEP) -> Judgement:
    made = evidence(QUALITY, share=share)
    for one in windows:
        made.observe(one)
    return made.judge(step)


def quality(one: VersionWindow, two: VersionWindow, *, share: float = 0.5) -> Verdict:
    return verdict(judged(window(one, two), share=share), "quality")


def test_more_bad_answers_among_those_checked_fail_the_candidate() -> None:
    judgement = judged(window(checked(500, 5), checked(500, 50)))
    found = verdict(judgement, "quality")
    assert (judgement.outcome, found.outcome) == ("fail", "fail")
    assert (found.baseline_samples, found.candidate_samples) == (500, 500)
    assert found.estimate == pytest.approx(0.09)
    assert found.e_value is not None
    assert found.threshold is not None
    assert found.e_value >= found.threshold
    assert "bad" in found.detail
    assert verdict(judgement, "error_rate").outcome != "fail"


def test_what_has_failed_stays_failed() -> None:
    bad = window(checked(500, 5), checked(500, 50))
    good = window(checked(500, 200), checked(500, 0))
    assert judged(bad, *[good] * 20).outcome == "fail"


def test_as_few_bad_answers_pass() -> None:
    found = quality(checked(20_000, 200), checked(20_000, 200))
    assert found.outcome == "pass"


def test_fewer_answers_that_are_checked_are_no_harm() -> None:
    """The same rate of bad answers, of a baseline that is hardly checked: shares say nothing."""
    assert quality(checked(200, 60), checked(5_000, 1_500)).outcome == "inconclusive"


def test_without_a_check_that_has_said_anything_nothing_passes() -> None:
    found = quality(version(1_000), version(1_000))
    assert (found.outcome, found.candidate_samples) == ("inconclusive", 0)
    found = quality(checked(20_000, 200), checked(0, failed=20_000))
    assert (found.outcome, found.candidate_samples) == ("inconclusive", 0)


def test_samples_are_answers_that_were_checked() -> None:
    step = Step(weight=50.0, hold_s=1.0, min_samples=1_000)
    judgement = judged(window(checked(20_000), checked(999, failed=500)), step=step)
    assert "999 of 1000" in verdict(judgement, "quality").detail


def test_a_check_that_fails_on_the_candidates_answers_fails_nothing_and_lets_nothing_pass() -> None:
    found = quality(checked(20_000, 200), checked(18_000, 180, failed=2_000))
    assert found.outcome == "inconclusive"
    assert "of 2000 of its answers" in found.detail
    assert found.e_value is not None
    assert found.e_value < 1.0
    few = quality(checked(20_000, 200), checked(20_000, 200, failed=20))
    assert few.outcome == "pass"


def test_a_check_that_fails_on_the_baselines_answers_makes_the_candidate_no_better() -> None:
    sound = quality(checked(20_000, 400), checked(20_000, 400))
    found = quality(checked(10_000, 200, failed=10_000), checked(20_000, 400))
    assert sound.interval is not None
    assert found.interval is not None
    assert found.interval[1] > sound.interval[1]
    assert found.interval[0] < sound.interval[0]


def test_bad_answers_of_few_keys_do_not_let_a_candidate_pass_where_those_of_many_do() -> None:
    assert quality(checked(18_000, 360), checked(2_000, 40)).outcome == "pass"
    few = quality(checked(18_000, 360), checked(2_000, 40, bad_keys=2))
    assert few.outcome == "inconclusive"


def test_each_gateway_is_evidence_of_its_own_and_the_mean_counts() -> None:
    one, two = checked(50, 2), checked(50, 10)
    alone = verdict(judged(window(one, two)), "quality").e_value
    both = verdict(judged(window(one, two), window(one, two, gateway="g2")), "quality").e_value
    assert alone == both
    silent = verdict(judged(window(one, two), window(one, one, gateway="g2")), "quality").e_value
    assert alone is not None
    assert silent is not None
    assert silent < alone


def test_a_step_without_requests_of_the_candidate_is_not_judged_and_the_last_one_is() -> None:
    unasked = judged(window(checked(500, 5)), share=0.0)
    assert "not judged" in verdict(unasked, "quality").detail
    made: Evidence = evidence(QUALITY, share=0.5)
    made.observe(window(checked(20_000, 200), checked(20_000, 200)))
    made.enter(step=1, policy=2, share=1.0)
    made.observe(window(two=checked(20_000, 10_000), policy=2))
    found = verdict(made.judge(STEP), "quality")
    assert found.outcome == "inconclusive"
    assert found.estimate == pytest.approx(0.49)


def test_alpha_is_shared_with_the_error_rate() -> None:
    found = {one.metric: one.alpha for one in judged().verdicts}
    assert found == {"error_rate": 0.025, "quality": 0.025, "sample_ratio": 0.001}

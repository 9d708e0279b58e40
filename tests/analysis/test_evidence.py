"""The evidence of a rollout: what it takes to pass, what fails, and when nothing is known."""

from __future__ import annotations

import msgspec
import pytest

from engine.analysis import Evidence, Judgement
from engine.analysis.evidence import WINDOWS_AHEAD_MAX
from events.catalogue.endpoints import Analysis, Step, Verdict
from events.catalogue.traffic import ShadowWindow, WindowObserved
from tests.analysis.windows import STEP, evidence, sketch, verdict, version, window


def good(policy: int = 1) -> WindowObserved:
    """Two per cent of both fail, with keys as they should fall at 10 %."""
    return window(version(18_000, 360), version(2_000, 40), policy=policy)


def bad(policy: int = 1) -> WindowObserved:
    return window(version(900, 9), version(100, 40), policy=policy)


def judged(*windows: WindowObserved, analysis: Analysis | None = None) -> Judgement:
    made = evidence(analysis)
    for one in windows:
        made.observe(one)
    return made.judge(STEP)


def test_a_candidate_as_good_as_its_baseline_passes() -> None:
    judgement = judged(good())
    assert judgement.outcome == "pass"
    found = verdict(judgement, "error_rate")
    assert (found.baseline_samples, found.candidate_samples) == (18_000, 2_000)
    assert found.interval is not None and found.e_value is not None
    assert found.interval[0] < 0.0 == found.estimate < found.interval[1] < 0.02
    assert found.e_value < found.threshold == 20.0


def test_a_candidate_that_fails_more_often_than_its_share_fails() -> None:
    judgement = judged(bad())
    assert judgement.outcome == "fail"
    found = verdict(judgement, "error_rate")
    assert found.e_value is not None and found.threshold is not None
    assert found.e_value >= found.threshold
    assert found.estimate == pytest.approx(0.39)


def test_what_has_failed_stays_failed_however_good_the_rest_is() -> None:
    assert judged(bad(), *[good()] * 50).outcome == "fail"


def test_nothing_is_known_before_the_first_window() -> None:
    judgement = judged()
    assert judgement.outcome == "inconclusive"
    assert {one.outcome for one in judgement.verdicts} == {"inconclusive"}
    unentered = Evidence(baseline="1", candidate="2", analysis=Analysis())
    assert unentered.judge(STEP).outcome == "inconclusive"


@pytest.mark.parametrize(
    "empty",
    [
        window(),
        WindowObserved(gateway="g1", start=good().start, versions={}, policy=1),
        window(version(1_000, 20)),
        window(two=version(0)),
    ],
    ids=["no requests", "no versions", "baseline only", "an idle candidate"],
)
def test_windows_without_the_candidate_never_let_it_pass(empty: WindowObserved) -> None:
    assert judged(*[empty] * 1_000).outcome == "inconclusive"


def test_windows_without_keys_never_let_it_pass() -> None:
    keyless = window(version(18_000, 360, keys=0), version(2_000, 40, keys=0))
    judgement = judged(keyless)
    assert judgement.outcome == "inconclusive"
    assert verdict(judgement, "sample_ratio").outcome == "inconclusive"


def test_a_step_needs_the_samples_it_asks_for() -> None:
    made = evidence()
    made.observe(good())
    enough, too_few = (Step(weight=10, hold_s=0, min_samples=n) for n in (2_000, 2_001))
    assert made.judge(enough).outcome == "pass"
    judgement = made.judge(too_few)
    assert judgement.outcome == "inconclusive"
    assert "2000 of 2001" in verdict(judgement, "error_rate").detail


def test_few_samples_hold_whatever_their_rate_is() -> None:
    judgement = judged(window(version(180), version(20)))
    assert judgement.outcome == "inconclusive"
    assert "may exceed" in verdict(judgement, "error_rate").detail


def test_a_step_passes_on_its_own_windows_only() -> None:
    made = evidence()
    made.observe(good())
    made.enter(step=1, policy=2, share=0.25)
    assert made.judge(STEP).outcome == "inconclusive"
    made.observe(window(version(7_500, 150), version(2_500, 50), policy=2))
    assert made.judge(STEP).outcome == "pass"


def test_a_rate_that_grows_with_the_weights_is_no_difference() -> None:
    made = evidence(share=0.05)
    made.observe(window(version(95_000, 950), version(5_000, 50)))
    made.enter(step=1, policy=2, share=0.5)
    made.observe(window(version(50_000, 2_500), version(50_000, 2_500), policy=2))
    judgement = made.judge(STEP)
    assert judgement.outcome == "pass"
    found = verdict(judgement, "error_rate")
    assert found.e_value is not None and found.e_value < 1.0


def test_the_alarm_counts_failures_of_all_steps() -> None:
    made = evidence()
    made.observe(window(version(90, 5), version(10, 3)))
    assert made.judge(STEP).outcome == "inconclusive"
    made.enter(step=1, policy=2, share=0.25)
    made.observe(window(version(75, 4), version(25, 7), policy=2))
    assert made.judge(STEP).outcome == "fail"


def test_a_late_window_counts_for_the_step_it_belongs_to() -> None:
    made = evidence()
    made.enter(step=1, policy=2, share=0.25)
    made.observe(good(policy=1))
    assert made.judge(STEP).outcome == "inconclusive"
    made.observe(bad(policy=1))
    assert made.judge(STEP).outcome == "fail"


def test_a_window_that_comes_before_its_step_is_counted_when_the_step_begins() -> None:
    early = evidence()
    early.observe(good(policy=2))
    assert early.judge(STEP).outcome == "inconclusive"
    early.enter(step=1, policy=2, share=0.1)
    early.enter(step=1, policy=2, share=0.1)
    judgement = early.judge(STEP)
    assert judgement.outcome == "pass"
    assert verdict(judgement, "error_rate").candidate_samples == 2_000


def test_only_so_many_windows_wait_for_their_step() -> None:
    early = evidence()
    early.observe(bad(policy=2))
    for _ in range(WINDOWS_AHEAD_MAX):
        early.observe(window(version(9), version(1), policy=2))
    early.enter(step=1, policy=2, share=0.1)
    judgement = early.judge(STEP)
    assert judgement.outcome == "pass"
    assert verdict(judgement, "error_rate").candidate_samples == WINDOWS_AHEAD_MAX


def test_windows_of_policies_long_past_take_no_room_from_those_that_wait() -> None:
    early = Evidence(baseline="1", candidate="2", analysis=Analysis())
    early.enter(step=0, policy=5, share=0.1)
    early.observe(bad(policy=6))
    for _ in range(WINDOWS_AHEAD_MAX):
        early.observe(window(policy=4))
    early.enter(step=1, policy=6, share=0.1)
    assert early.judge(STEP).outcome == "fail"


def test_entering_a_policy_again_changes_nothing() -> None:
    made = evidence(share=0.1)
    made.enter(step=3, policy=1, share=0.9)
    made.observe(good())
    assert made.judge(STEP).verdicts == judged(good()).verdicts


def test_harm_that_only_one_of_two_gateways_sees_is_found_and_none_is_made_of_two() -> None:
    seen = window(version(900, 9), version(100, 4))
    twice = msgspec.structs.replace(seen, gateway="g2")
    alone, both = (verdict(judged(*windows), "error_rate") for windows in ([seen], [seen, twice]))
    assert both.e_value == pytest.approx(alone.e_value)
    assert judged(twice, bad()).outcome == "fail"


@pytest.mark.parametrize("policy", [0, 3, 4])
def test_windows_of_other_policies_say_nothing(policy: int) -> None:
    made = Evidence(baseline="1", candidate="2", analysis=Analysis())
    made.enter(step=0, policy=5, share=0.1)
    made.observe(bad(policy=policy))
    assert {one.outcome for one in made.judge(STEP).verdicts} == {"inconclusive"}
    made.observe(good(policy=5))
    assert made.judge(STEP).outcome == "pass"


def test_other_versions_in_a_window_say_nothing() -> None:
    made = evidence()
    crowded = msgspec.structs.replace(
        good(), versions={**good().versions, "3": version(1_000, 1_000)}
    )
    made.observe(crowded)
    assert made.judge(STEP).verdicts == judged(good()).verdicts


def test_how_often_one_looks_changes_nothing() -> None:
    windows = [window(version(90, 2), version(10, number % 3)) for number in range(60)]
    watched, unwatched = evidence(), evidence()
    for one in windows:
        watched.observe(one)
        watched.judge(STEP)
        unwatched.observe(one)
    assert watched.judge(STEP) == unwatched.judge(STEP)


def test_without_a_baseline_the_one_of_the_last_shared_step_is_compared_with() -> None:
    made = evidence(share=0.5)
    made.observe(window(version(20_000, 1_000), version(20_000, 1_000)))
    made.enter(step=1, policy=2, share=1.0)
    made.observe(window(two=version(20_000, 1_000), policy=2))
    judgement = made.judge(STEP)
    assert judgement.outcome == "pass"
    assert verdict(judgement, "error_rate").baseline_samples == 0
    made.observe(window(two=version(20_000, 2_600), policy=2))
    assert made.judge(STEP).outcome == "inconclusive"


def test_without_any_baseline_the_candidates_own_rate_must_lie_below_the_margin() -> None:
    alone = evidence(share=1.0)
    alone.observe(window(two=version(20_000, 200)))
    assert alone.judge(STEP).outcome == "pass"
    alone.observe(window(two=version(20_000, 800)))
    assert alone.judge(STEP).outcome == "inconclusive"


def test_keys_that_fall_wrongly_stop_every_pass_but_roll_nothing_back() -> None:
    judgement = judged(window(version(18_000, 360), version(2_000, 40, keys=3_000)))
    found = verdict(judgement, "sample_ratio")
    assert judgement.outcome == found.outcome == "inconclusive"
    assert found.e_value is not None and found.e_value >= found.threshold == 1_000.0
    assert found.estimate == pytest.approx(3_000 / 21_000 - 0.1)
    assert verdict(judgement, "error_rate").outcome == "pass"


def test_failures_of_few_keys_do_not_let_a_candidate_pass_where_those_of_many_do() -> None:
    many = window(version(18_000, 360), version(2_000, 40))
    few = window(version(18_000, 360), version(2_000, 40, failing_keys=2))
    assert judged(many).outcome == "pass"
    assert judged(few).outcome == "inconclusive"


def test_one_key_that_fails_again_and_again_raises_no_alarm() -> None:
    again = window(version(9_000), version(1_000, 300, failing_keys=1))
    judgement = judged(again, analysis=Analysis(max_error_rate=0.1))
    assert judgement.outcome == "inconclusive"
    assert verdict(judgement, "max_error_rate").outcome == "pass"


def test_alpha_is_split_over_what_is_judged_and_sample_ratio_has_its_own() -> None:
    analysis = Analysis(
        metric="timeout_rate", alpha=0.04, max_error_rate=0.2, max_latency_ratio=2.0
    )
    alphas = {one.metric: one.alpha for one in judged(analysis=analysis).verdicts}
    assert alphas == {
        "error_rate": 0.01,
        "timeout_rate": 0.01,
        "max_error_rate": 0.01,
        "max_latency_ratio": 0.01,
        "sample_ratio": 0.001,
    }


def test_time_outs_are_judged_apart_from_other_errors() -> None:
    analysis = Analysis(metric="timeout_rate")
    judgement = judged(
        window(version(900, 20, failing_keys=0), version(100, 30, code="timeout")),
        analysis=analysis,
    )
    assert verdict(judgement, "timeout_rate").outcome == "fail"
    other = judged(window(version(18_000, 360), version(2_000, 40)), analysis=analysis)
    found = verdict(other, "timeout_rate")
    assert (found.outcome, found.estimate) == ("pass", 0.0)


FAST, SLOW = sketch([20.0] * 1_000), sketch([20.0] * 800 + [300.0] * 200)
OBJECTIVE = Analysis(metric="latency", max_latency_ms=100.0)


def test_latency_is_the_share_of_answers_over_the_objective() -> None:
    judgement = judged(
        window(version(1_000, latency=FAST), version(1_000, latency=FAST)),
        analysis=OBJECTIVE,
    )
    assert verdict(judgement, "latency").outcome == "pass"
    slow = evidence(OBJECTIVE, share=0.5)
    slow.observe(window(version(1_000, latency=FAST), version(1_000, latency=SLOW, slow=200)))
    found = verdict(slow.judge(STEP), "latency")
    assert (found.outcome, found.estimate) == ("fail", 0.2)


def test_latency_over_an_objective_needs_the_objective() -> None:
    with pytest.raises(ValueError, match="max_latency_ms"):
        Evidence(baseline="1", candidate="2", analysis=Analysis(metric="latency"))


def limit(analysis: Analysis, metric: str, *windows: WindowObserved, share: float) -> Verdict:
    made = evidence(analysis, share=share)
    for one in windows:
        made.observe(one)
    return verdict(made.judge(STEP), metric)


@pytest.mark.parametrize(("failures", "outcome"), [(50, "pass"), (200, "fail")])
def test_an_error_rate_above_its_limit_fails_even_where_the_baseline_fails_alike(
    failures: int, outcome: str
) -> None:
    both = window(version(1_000, failures), version(1_000, failures))
    found = limit(Analysis(max_error_rate=0.1), "max_error_rate", both, share=0.5)
    assert found.outcome == outcome
    assert found.estimate == failures / 1_000


def test_more_than_five_per_cent_of_slow_answers_break_the_latency_limit() -> None:
    analysis = Analysis(max_latency_ms=100.0)
    slow = window(version(1_000, latency=SLOW, slow=200), version(1_000, latency=SLOW, slow=200))
    fast = window(version(1_000, latency=FAST), version(1_000, latency=FAST))
    assert limit(analysis, "max_latency_ms", slow, share=0.5).outcome == "fail"
    assert limit(analysis, "max_latency_ms", fast, share=0.5).outcome == "pass"


def test_a_mean_latency_above_the_ratio_fails_and_says_it_is_asymptotic() -> None:
    analysis = Analysis(max_latency_ratio=2.0)
    slow = window(version(1_000, latency=FAST), version(1_000, latency=SLOW))
    found = limit(analysis, "max_latency_ratio", slow, share=0.5)
    assert (found.outcome, found.estimate) == ("fail", pytest.approx(76.0 - 40.0))
    assert "asymptotic" in found.detail
    fast = window(version(1_000, latency=FAST), version(1_000, latency=FAST))
    assert limit(analysis, "max_latency_ratio", fast, share=0.5).outcome == "pass"
    stays = limit(analysis, "max_latency_ratio", slow, *[fast] * 100, share=0.5)
    assert stays.outcome == "fail"


def test_a_mean_latency_of_few_answers_is_inconclusive() -> None:
    few = window(version(50, latency=sketch([20.0] * 50)), version(50, latency=sketch([90.0] * 50)))
    found = limit(Analysis(max_latency_ratio=2.0), "max_latency_ratio", few, share=0.5)
    assert (found.outcome, found.interval) == ("inconclusive", None)


def test_a_mean_latency_without_a_baseline_is_not_judged() -> None:
    alone = window(two=version(1_000, latency=FAST))
    found = limit(Analysis(max_latency_ratio=2.0), "max_latency_ratio", alone, share=1.0)
    assert (found.outcome, found.interval) == ("pass", None)
    assert "not judged" in found.detail


SHADOWED = Analysis(max_disagreement_rate=0.05)


def copies(compared: int, agreed: int, *, errors: int = 0) -> WindowObserved:
    failed = {"runtime_failed": errors} if errors else {}
    shadow = ShadowWindow(
        mirrored=compared + errors, compared=compared, agreed=agreed, errors=failed
    )
    return window(version(compared + errors), shadow=shadow)


@pytest.mark.parametrize(
    ("seen", "outcome"),
    [
        (copies(1_000, 995), "pass"),
        (copies(1_000, 950), "inconclusive"),
        (copies(1_000, 800), "fail"),
        (copies(10, 10), "inconclusive"),
        (copies(1_000, 1_000, errors=200), "inconclusive"),
        (window(version(1_000)), "inconclusive"),
        (window(), "inconclusive"),
    ],
    ids=["rarely", "as often", "often", "few pairs", "copies fail", "no pairs", "no requests"],
)
def test_a_shadow_passes_only_when_it_is_shown_to_disagree_rarely(
    seen: WindowObserved, outcome: str
) -> None:
    made = evidence(SHADOWED, share=0.0)
    made.observe(seen)
    judgement = made.judge(Step(weight=0.0, hold_s=60.0))
    assert verdict(judgement, "max_disagreement_rate").outcome == outcome
    assert judgement.outcome == outcome


def test_a_shadow_that_disagreed_too_often_stays_failed() -> None:
    made = evidence(SHADOWED, share=0.0)
    made.observe(copies(1_000, 800))
    made.observe(copies(100_000, 99_999))
    assert made.judge(STEP).outcome == "fail"


def test_what_a_shadow_showed_before_does_not_replace_what_this_step_asks_for() -> None:
    made = evidence(SHADOWED, share=0.0)
    made.observe(copies(1_000, 1_000))
    made.enter(step=1, policy=2, share=0.0)
    step = Step(weight=0.0, hold_s=60.0, min_samples=10)
    made.observe(window(version(1_000), policy=2))
    assert made.judge(step).outcome == "inconclusive"
    made.observe(msgspec.structs.replace(copies(10, 10), policy=2))
    assert made.judge(step).outcome == "pass"


def test_requests_are_not_judged_while_the_candidate_gets_none() -> None:
    made = evidence(SHADOWED, share=0.0)
    made.observe(copies(1_000, 1_000))
    found = verdict(made.judge(STEP), "error_rate")
    assert found.outcome == "pass"
    assert "not judged" in found.detail


def test_a_step_without_traffic_for_the_candidate_still_needs_traffic() -> None:
    made = evidence(share=0.0)
    judgement = made.judge(STEP)
    assert judgement.outcome == "inconclusive"
    assert "no window" in verdict(judgement, "error_rate").detail
    made.observe(window(version(100)))
    assert made.judge(STEP).outcome == "pass"


def test_what_a_shadow_showed_still_counts_when_it_gets_requests() -> None:
    made = evidence(SHADOWED, share=0.0)
    made.observe(copies(1_000, 1_000))
    made.enter(step=1, policy=2, share=0.1)
    made.observe(good(policy=2))
    assert made.judge(STEP).outcome == "pass"


def test_every_judgement_can_be_written_as_json() -> None:
    analysis = msgspec.structs.replace(
        OBJECTIVE, max_error_rate=0.1, max_latency_ratio=1.5, max_disagreement_rate=0.1
    )
    always = window(version(9_000), version(100_000, 100_000))
    for judgement in (judged(analysis=analysis), judged(*[always] * 10, analysis=analysis)):
        read = msgspec.json.decode(msgspec.json.encode(judgement), type=Judgement)
        assert read == judgement

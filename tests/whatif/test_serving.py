"""How many recorded requests each version would have served under another split."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from engine.whatif import would_serve
from engine.whatif.serving import AttributesNotRecorded
from events.catalogue.endpoints import Policy, Rule, When
from events.catalogue.traffic import VersionWindow, WindowObserved
from tests.whatif.recorded import second

RECORDED = {1: Policy(split={"1.0.0": 90.0, "2.0.0": 10.0})}
WINDOWS = [second(i, base=(90, 0), new=(10, 5)) for i in range(10)]


def test_the_recorded_split_gives_the_recorded_counts() -> None:
    same = Policy(split={"1.0.0": 9.0, "2.0.0": 1.0})
    found = would_serve(same, WINDOWS, RECORDED)
    assert (found.requests, found.estimated) == (1_000, False)
    candidate = found.versions["2.0.0"]
    assert (candidate.recorded, candidate.recorded_failed) == (100, 50)
    assert (candidate.requests, candidate.failed, candidate.unknown) == (100, 50, 0)


def test_another_split_is_estimated_from_the_recorded_rates() -> None:
    found = would_serve(Policy(split={"1.0.0": 1.0, "2.0.0": 3.0}), WINDOWS, RECORDED)
    assert found.estimated
    assert (found.versions["2.0.0"].requests, found.versions["2.0.0"].failed) == (750, 375)
    assert (found.versions["1.0.0"].requests, found.versions["1.0.0"].failed) == (250, 0)


def test_what_a_version_that_was_not_there_would_have_failed_is_unknown() -> None:
    found = would_serve(Policy(split={"3.0.0": 1.0}), WINDOWS, RECORDED)
    unseen = found.versions["3.0.0"]
    assert (unseen.recorded, unseen.requests, unseen.failed, unseen.unknown) == (0, 1_000, 0, 1_000)
    assert found.versions["1.0.0"].requests == 0


def test_rules_by_time_are_followed() -> None:
    """The windows are of a Monday at nine; the recorded split is that of the rule."""
    early = Rule(name="early", when=When(from_="08:00", to="10:00"), split={"1.0.0": 9, "2.0.0": 1})
    late = Rule(name="late", when=When(from_="10:00", to="12:00"), split={"2.0.0": 1})
    policy = Policy(split={"1.0.0": 1.0}, rules=(late, early))
    assert would_serve(policy, WINDOWS, RECORDED).versions["2.0.0"].requests == 100


def test_rules_by_attributes_cannot_be_told_and_are_refused() -> None:
    rule = Rule(name="beta", when=When(attributes={"tier": "beta"}), split={"2.0.0": 1})
    with pytest.raises(AttributesNotRecorded, match=r"rules\[0\]"):
        would_serve(Policy(split={"1.0.0": 1.0}, rules=(rule,)), WINDOWS, RECORDED)


def test_requests_that_fell_back_are_those_of_the_version_they_were_dealt_to() -> None:
    """Of a second's 100 requests half are dealt to each; the candidate fails 20, and the baseline
    answers all of these but 5."""
    window = WindowObserved(
        gateway="g1",
        start=datetime(2026, 1, 5, 9, tzinfo=UTC),
        policy=1,
        versions={
            "1.0.0": VersionWindow(
                requests=70, errors={"timeout": 5}, fallbacks=20, fallbacks_failed=5
            ),
            "2.0.0": VersionWindow(requests=50, errors={"timeout": 20}),
        },
    )
    recorded = {1: Policy(split={"1.0.0": 1.0, "2.0.0": 1.0})}
    for split, served in (
        ({"1.0.0": 1.0, "2.0.0": 1.0}, {"1.0.0": (50, 0), "2.0.0": (50, 20)}),
        ({"1.0.0": 1.0, "2.0.0": 3.0}, {"1.0.0": (25, 0), "2.0.0": (75, 30)}),
    ):
        found = would_serve(Policy(split=split), [window], recorded)
        assert found.requests == 100
        assert {v: (n.requests, n.failed) for v, n in found.versions.items()} == served
        assert [n.recorded for n in found.versions.values()] == [50, 50]
        assert [n.recorded_failed for n in found.versions.values()] == [0, 20]

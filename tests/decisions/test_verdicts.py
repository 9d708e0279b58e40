"""Evidence in events: whatever the analysis says, it is written and read back as it was decided."""

from __future__ import annotations

from math import inf, nan
from typing import Any, Final

import pytest
from hypothesis import given as over
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.decisions.decider import fold
from engine.decisions.endpoint import DECIDER, Command
from engine.decisions.under_way import TEXT_CHARS_MAX
from engine.decisions.verdicts import FLOAT_MAX, VERDICTS_MAX, writable
from events import EntityId, Event, Metadata
from events.catalogue.endpoints import Verdict
from events.codec import decode, encode
from tests.decisions.endpoints import created
from tests.decisions.rollouts import LAST, PASS, abort, advance, hold, under_way

CHAT: Final = EntityId("acme", "endpoint", "chat")

floats = st.none() | st.floats()
verdicts = st.builds(
    Verdict,
    metric=st.text(max_size=20),
    outcome=st.sampled_from(["pass", "fail", "inconclusive"]),
    baseline_samples=st.integers(0, 10**9),
    candidate_samples=st.integers(0, 10**9),
    estimate=floats,
    interval=st.none() | st.tuples(st.floats(), st.floats()),
    e_value=floats,
    alpha=st.floats(),
    threshold=floats,
    detail=st.text(max_size=20),
)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({}, {}),
        ({"interval": (-inf, 0.1)}, {"interval": None}),
        ({"interval": (0.1, nan)}, {"interval": None}),
        ({"e_value": inf}, {"e_value": FLOAT_MAX}),
        ({"e_value": nan, "estimate": nan}, {"e_value": None, "estimate": None}),
        ({"estimate": -inf, "threshold": inf}, {"estimate": -FLOAT_MAX, "threshold": FLOAT_MAX}),
        ({"alpha": nan}, {"alpha": 0.0}),
        ({"detail": "x" * 10_000}, {"detail": "x" * TEXT_CHARS_MAX}),
    ],
)
def test_what_cannot_be_written_is_left_out_or_made_as_large_as_numbers_go(
    said: dict[str, Any], told: dict[str, Any]
) -> None:
    assert writable([replace(PASS, **said)]) == (replace(PASS, **told),)


def test_there_is_an_end_to_evidence() -> None:
    assert writable([PASS] * 1_000) == (PASS,) * VERDICTS_MAX


def reports(said: tuple[Verdict, ...]) -> list[tuple[int, Command]]:
    """(step in force, report) of every kind that carries verdicts."""
    return [
        (0, advance(0, verdicts=said)),
        (LAST, advance(LAST, verdicts=said)),
        (0, hold(0, *said)),
        (0, abort(reason="failed", verdicts=said)),
    ]


@over(st.lists(verdicts, max_size=2).map(tuple))
def test_whatever_the_evidence_its_events_are_read_back_as_they_were_decided(
    said: tuple[Verdict, ...],
) -> None:
    for step, report in reports(said):
        history: list[Event] = [created(), *under_way(step)]
        decided = list(DECIDER.decide(fold(DECIDER, history), report))
        assert decided
        assert [_read_back(event) for event in decided] == decided


def _read_back(event: Event) -> Event:
    body = encode(CHAT, event, Metadata(), 0)
    return decode(body, position=1, subject=CHAT.subject).event

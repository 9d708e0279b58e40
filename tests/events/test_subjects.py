"""Patterns match as NATS matches them, and nothing a user types can widen a subject."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import EntityId, InvalidIdentifier
from events.event import IDENTIFIER
from events.subjects import subject_matcher

HOSTILE = [
    "",
    "*",
    ">",
    "a.b",
    "a*",
    "a>",
    ".",
    "..",
    "-a",
    "_a",
    "a b",
    "a\t",
    "a\n",
    "a\r\n",
    "a\x00",
    "a/b",
    "a\\b",
    "ä",
    "ａ",
    "1.0.0+x",
    "a" * 65,
    "a" * 10_000,
    "$JS.API.STREAM.DELETE.EVENTS",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_names_no_entity(text: str) -> None:
    for parts in ((text, "model", "m"), ("acme", text, "m"), ("acme", "model", text)):
        with pytest.raises(InvalidIdentifier):
            EntityId(*parts)


@given(st.text())
def test_text_that_names_an_entity_is_one_plain_token(text: str) -> None:
    if IDENTIFIER.match(text):
        assert text.isascii()
        assert not set(text) & set(".*> \t\r\n$/")
        entity = EntityId(text, "model", text)
        assert EntityId.of_subject(entity.subject) == entity


@pytest.mark.parametrize("subject", ["", "evt", "evt.a.b", "evt.a.b.c.d", "obs..b.c", "x.a.b.c"])
def test_other_subjects_name_no_entity(subject: str) -> None:
    with pytest.raises(InvalidIdentifier):
        EntityId.of_subject(subject)


@pytest.mark.parametrize(
    ("pattern", "subject", "matches"),
    [
        ("evt.>", "evt.a", True),
        ("evt.>", "evt.a.b.c", True),
        ("evt.>", "evt", False),
        ("evt.>", "obs.a", False),
        ("evt.*.model.*", "evt.a.model.b", True),
        ("evt.*.model.*", "evt.a.model.b.c", False),
        ("evt.*", "evt.a.b", False),
        ("evt.*.model.>", "evt.a.model.b", True),
        ("evt.a.model.b", "evt.a.model.b", True),
        ("evt.a.model.b", "evt.a.model.bc", False),
        ("evt.a+.model.b", "evt.aa.model.b", False),
    ],
)
def test_a_pattern_matches_as_in_nats(pattern: str, subject: str, matches: bool) -> None:
    assert subject_matcher(pattern)(subject) is matches


@pytest.mark.parametrize("pattern", ["", ".", "evt.", ".evt", "evt..a", "evt.>.a", "evt. a"])
def test_what_nats_would_refuse_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="pattern"):
        subject_matcher(pattern)

"""The page of scenarios is what the tests are, and nothing due is missing."""

from __future__ import annotations

from pathlib import Path

from tests.scenarios.document import DUE, document, scenarios

PAGE = Path(__file__).parent.parent.parent / "docs" / "scenarios.md"


def test_the_page_is_written_from_the_tests():
    assert PAGE.read_text() == document()


def test_every_scenario_that_is_due_has_a_test():
    assert {id_ for _, ids in DUE.values() for id_ in ids} == {s.id for s in scenarios()}

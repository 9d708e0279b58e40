"""The fixture itself: it accepts what holds, and its refusal to accept reads as a story."""

from __future__ import annotations

import pytest

from engine.decisions.tenant import DECIDER, CreateTenant, RevokeKey, UnknownKey, UnknownTenant
from events.catalogue.tenants import TenantCreated
from switchback.testing import Given

ACME = TenantCreated(name="acme")


def test_a_story_that_holds_passes_and_goes_on(given: Given) -> None:
    history = given(DECIDER).when(CreateTenant(name="acme")).then([ACME])
    history = history.when(RevokeKey(key_id="k")).refused(UnknownKey, key_id="k")
    history.when(CreateTenant(name="acme")).then([])


def test_other_events_than_expected_are_told_with_the_whole_story(given: Given) -> None:
    with pytest.raises(AssertionError) as failure:
        given(DECIDER, [ACME]).when(CreateTenant(name="acme")).then([ACME])
    assert str(failure.value).splitlines() == [
        "given",
        "  TenantCreated(name='acme')",
        "when",
        "  CreateTenant(name='acme')",
        "expected",
        "  TenantCreated(name='acme')",
        "but got",
        "  no events",
    ]


def test_a_refusal_instead_of_events_is_named_with_its_data(given: Given) -> None:
    with pytest.raises(AssertionError, match=r"but got\n  refused by UnknownKey \{'key_id': 'k'\}"):
        given(DECIDER, [ACME]).when(RevokeKey(key_id="k")).then([])


@pytest.mark.parametrize(
    "refused", [{"error": UnknownTenant}, {"error": UnknownKey, "key_id": "other"}]
)
def test_another_refusal_or_other_data_fails(given: Given, refused: dict[str, object]) -> None:
    with pytest.raises(AssertionError, match="expected\n  refused by"):
        given(DECIDER, [ACME]).when(RevokeKey(key_id="k")).refused(**refused)  # type: ignore[arg-type]


def test_events_instead_of_a_refusal_fail(given: Given) -> None:
    with pytest.raises(AssertionError, match="refused by UnknownTenant"):
        given(DECIDER).when(CreateTenant(name="acme")).refused(UnknownTenant)

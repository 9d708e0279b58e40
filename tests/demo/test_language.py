"""What the tour's third act claims holds only if what was seen says so."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from switchback.demo.completions import Told
from switchback.demo.language import (
    BETTER,
    COUNTRIES,
    SMALL,
    STREAM_TOKENS,
    STREAMS,
    Spoken,
    checks_of_language,
)

CAPITALS = ("Paris", "Tokyo", "Oslo", "Cairo", "Brasília", "Ottawa", "Nairobi", "Warsaw")
KNOWS = "the better model knew more capitals"
ENDED = "every stream ended, in full, on the version that began it"
OVERLAPPED = "streams were swapped in their middle"
PRIORITY = "high priority went before low"
PREFIX = "a prefix that was known was not computed again"


def told(version: str = BETTER, **other: Any) -> Told:
    plain: dict[str, Any] = {"text": "", "tokens": STREAM_TOKENS, "cached_tokens": 0}
    return Told(version=version, **(plain | {"asked": 0.0, "first": 1.0, "ended": 5.0} | other))


def capitals(version: str, *, right: int) -> list[Told]:
    texts = [f" {city}." for city in CAPITALS[:right]] + [" Atlantis."] * (len(CAPITALS) - right)
    return [told(version, text=text) for text in texts]


AS_IT_SHOULD_BE = Spoken(
    answers={
        SMALL: capitals(SMALL, right=3),
        BETTER: capitals(BETTER, right=len(COUNTRIES)),
    },
    before=[told(SMALL)] * STREAMS,
    after=[told(BETTER, first=2.0)] * STREAMS,
    freed=10.0,
    low=[told(first=12.0)],
    high=[told(first=11.0)],
    unknown=told(),
    known=told(cached_tokens=100),
    statistics={},
)


def failed(**seen: Any) -> list[str]:
    spoken = msgspec.structs.replace(AS_IT_SHOULD_BE, **seen)
    return [check.what for check in checks_of_language(spoken) if not check.held]


def test_an_act_in_which_all_went_well_holds() -> None:
    assert failed() == []


@pytest.mark.parametrize(
    ("seen", "broken"),
    [
        ({"answers": {SMALL: capitals(SMALL, right=3), BETTER: capitals(BETTER, right=7)}}, KNOWS),
        ({"answers": dict.fromkeys((SMALL, BETTER), capitals(BETTER, right=8))}, KNOWS),
        ({"before": [told(BETTER)]}, ENDED),
        ({"before": [told(SMALL, tokens=STREAM_TOKENS - 1)]}, ENDED),
        ({"after": [told(SMALL, first=2.0)]}, ENDED),
        ({"before": [told(SMALL, ended=1.5)]}, OVERLAPPED),
        ({"low": [told(first=10.5)]}, PRIORITY),
        ({"known": told()}, PREFIX),
    ],
)
def test_a_claim_that_does_not_hold_is_told(seen: dict[str, Any], broken: str) -> None:
    assert failed(**seen) == [broken]

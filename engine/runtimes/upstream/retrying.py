"""Whether a failed attempt is repeated, and after which pause. Pure.

Repeated is only what the upstream cannot have begun to answer, or what it asked to be asked again.
Pauses grow, and are drawn at random so that many callers do not come back together.
"""

from __future__ import annotations

from random import Random
from typing import Final

import msgspec

from engine.runtimes.upstream.errors import UpstreamFailed


class Pauses(msgspec.Struct, frozen=True, kw_only=True):
    """Between attempts."""

    first_seconds: float = 0.1
    """About the first; each further one is about twice as long."""
    seconds_max: float = 5.0
    """The longest; an upstream that asks for more is not waited for."""


PAUSES: Final = Pauses()


def pause_before_retry(
    failure: UpstreamFailed,
    *,
    attempts: int,
    attempts_max: int,
    left_s: float,
    random: Random,
    pauses: Pauses = PAUSES,
) -> float | None:
    """Seconds to wait before the next attempt; None when the failure is final.

    `attempts` have been made, `left_s` are left for pause and answer together. A Retry-After is the
    least that is waited.
    """
    if not failure.is_repeatable or attempts >= attempts_max:
        return None
    pause_s = backoff_seconds(attempts, random=random, pauses=pauses)
    asked_s = failure.retry_after_s or 0.0
    if asked_s > pauses.seconds_max or asked_s + pause_s >= left_s:
        return None
    return asked_s + pause_s if asked_s else pause_s


def backoff_seconds(attempts: int, *, random: Random, pauses: Pauses = PAUSES) -> float:
    """Evenly distributed over the upper half of a range that doubles with each attempt."""
    range_s = min(pauses.first_seconds * 2.0 ** (attempts - 1), pauses.seconds_max)
    return range_s * (0.5 + random.random() / 2)

"""Verdicts as they stand in events: whatever the analysis says can be written and read back.

JSON has no word for infinity: an event that held one could never be read again, and so would end
the history of its endpoint. No evidence may do that, and none may stop a rollback.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from math import isfinite, isnan
from typing import Final

from msgspec.structs import replace

from engine.decisions.under_way import TEXT_CHARS_MAX
from events.catalogue.endpoints import Verdict

VERDICTS_MAX: Final = 32
"""Further ones are left out."""
FLOAT_MAX: Final = sys.float_info.max


def writable(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts with long details cut, no bounds where one is infinite, no number where there
    is none, and evidence beyond all numbers as the largest one."""
    return tuple(_writable(verdict) for verdict in [*verdicts][:VERDICTS_MAX])


def _writable(verdict: Verdict) -> Verdict:
    interval = verdict.interval
    return replace(
        verdict,
        estimate=_number(verdict.estimate),
        interval=interval if interval is not None and all(map(isfinite, interval)) else None,
        e_value=_number(verdict.e_value),
        alpha=_number(verdict.alpha) or 0.0,
        threshold=_number(verdict.threshold),
        detail=verdict.detail[:TEXT_CHARS_MAX],
    )


def _number(value: float | None) -> float | None:
    if value is None or isnan(value):
        return None
    return min(max(value, -FLOAT_MAX), FLOAT_MAX)

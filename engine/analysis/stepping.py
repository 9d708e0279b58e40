"""What a verdict leads to: the one rule by which rollouts move, live and in what-if alike.

Pure: whoever calls says what the evidence is and whether the step's hold is over. The reaction
makes a command of the answer; what-if writes it down.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias

import msgspec

from events.catalogue.endpoints import Analysis, Step

WINDOWS_BEHIND_SECONDS: Final = 2.0
"""A window is on the log about a second after it began: until then a step whose hold is over and
that has not passed is not called inconclusive."""

Outcome: TypeAlias = Literal["pass", "fail", "inconclusive"]
Held: TypeAlias = Literal["inconclusive", "paused"]
"""Why a rollout is held."""


class Wait(msgspec.Struct, frozen=True):
    """Nothing is due."""


class Advance(msgspec.Struct, frozen=True, kw_only=True):
    """The step is over, and the next one begins."""

    to_step: int | None
    """Index of the next step; None when this was the last, so that the rollout completes."""
    reason: Literal["passed", "inconclusive"]


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    """The step goes on until it is known to be good, or until somebody decides."""

    reason: Literal["inconclusive"] = "inconclusive"


class Abort(msgspec.Struct, frozen=True, kw_only=True):
    """The rollout is over, and the traffic returns to the baseline."""

    reason: Literal["failed", "inconclusive"]


Action: TypeAlias = Wait | Advance | Hold | Abort


def settled_at(hold_until: datetime) -> datetime:
    """When the windows of the whole hold are on the log."""
    return hold_until + timedelta(seconds=WINDOWS_BEHIND_SECONDS)


def next_action(
    outcome: Outcome,
    *,
    step: int,
    steps: Sequence[Step],
    hold_over: bool,
    held: Held | None,
    analysis: Analysis,
) -> Action:
    """What is due now in a rollout whose current step is `steps[step]`.

    A failure ends the rollout at once, paused or not. A pass waits for the end of the hold. A
    rollout that is held as inconclusive goes on as soon as it passes; a paused one waits until it
    is resumed.
    """
    if outcome == "fail":
        return Abort(reason="failed")
    if not hold_over or held == "paused":
        return Wait()
    if outcome == "pass":
        return Advance(to_step=_after(step, steps), reason="passed")
    match analysis.on_inconclusive:
        case "rollback":
            return Abort(reason="inconclusive")
        case "promote":
            return Advance(to_step=_after(step, steps), reason="inconclusive")
        case "hold":
            return Wait() if held == "inconclusive" else Hold()


def _after(step: int, steps: Sequence[Step]) -> int | None:
    return step + 1 if step + 1 < len(steps) else None

"""Whether what is due in a rerun is what was recorded."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from engine.analysis.stepping import Abort, Action, Advance, Hold, Wait
from engine.whatif.record import Move

LATE_SECONDS_MAX: Final = 1.0
"""People who act so soon after the end of a window may be faster than the window."""


def is_only_later(move: Move, due: datetime) -> bool:
    """Whether what is due may have had to wait for this recorded move: for an own one because it
    is what was due, for one of people because they came between."""
    latest = timedelta.max if move.is_own else timedelta(seconds=LATE_SECONDS_MAX)
    return timedelta() <= move.time - due <= latest


def is_alike(action: Action, move: Move) -> bool:
    """Whether the recorded move is what the action would have been recorded as."""
    match action:
        case Wait():
            return False
        case Advance(reason=reason):
            return move.kind in ("advanced", "completed") and move.reason == reason
        case Hold(reason=reason):
            return (move.kind, move.reason) == ("held", reason)
        case Abort(reason=reason):
            return (move.kind, move.reason) == ("aborted", reason)

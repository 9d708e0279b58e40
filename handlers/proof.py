"""What goes with every answer: who gave it, and why."""

from __future__ import annotations

import msgspec

from events import Position


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """Of one request's route."""

    version: str
    """The one that answered: the chosen one, or a fallback."""
    position: Position
    """Of the event that set the policy."""
    receipt: str
    rule: str | None
    overhead_ms: float
    """Spent outside the version; of a stream until its first chunk."""
    attempts: int
    request_id: str

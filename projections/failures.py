"""What to do about an event that a projection cannot take: a closed set of values."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from events.event import Position

if TYPE_CHECKING:
    from projections.apply import Applied


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """An event that cannot be applied, and how often that was tried."""

    projection: str | None
    """None: the message is not an event at all, so no projection can take it."""
    position: Position
    subject: str
    reason: str
    attempt: int
    """From 1."""


class Retry(msgspec.Struct, frozen=True):
    """Try again: for a cause that passes by itself."""

    after_s: float = 1.0


class Skip(msgspec.Struct, frozen=True):
    """Pass over the event. Recorded for ever in `switchback.skipped`, with this reason."""

    reason: str


class Stop(msgspec.Struct, frozen=True):
    """Apply nothing more until somebody has looked."""


Outcome: TypeAlias = Retry | Skip | Stop
FailurePolicy: TypeAlias = Callable[[Failure], Outcome]


def stop_always(failure: Failure) -> Outcome:
    """The default: better a read model that stands still than one that silently lacks an event."""
    return Stop()


class ProjectionStopped(Exception):
    """The failure policy said stop. Carries the failure."""

    def __init__(self, failure: Failure) -> None:
        where = f"projection {failure.projection}" if failure.projection else "every projection"
        super().__init__(
            f"{where} stopped before position {failure.position} on {failure.subject}:"
            f" {failure.reason}"
        )
        self.failure = failure
        self.applied: tuple[Applied, ...] = ()
        """What was committed of the batch before that."""

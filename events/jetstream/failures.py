"""What the server can answer, as exceptions that stay inside this package, and how long we insist.

Callers of the ports see only `events.errors`.
"""

from __future__ import annotations

import asyncio
from typing import Final

from events.errors import LogError

INSIST_SECONDS: Final = 15.0
"""How long a call is repeated while no leader answers. A leader that dies uncleanly leaves its
stream without one for 4 to 9 s (measured, three replicas), and nothing shortens that."""
ATTEMPT_SECONDS: Final = 2.0
"""How long one attempt waits for its answer."""
_PAUSE_FIRST_SECONDS: Final = 0.02
_PAUSE_MAX_SECONDS: Final = 0.5

WRONG_LAST_SEQUENCE: Final = 10071
WRONG_LAST_SEQUENCE_IN_FLIGHT: Final = 10164
DUPLICATE_IN_FLIGHT: Final = 10158
DUPLICATE_IN_BATCH: Final = 10201
LOST_RACE: Final = frozenset(
    {
        WRONG_LAST_SEQUENCE,
        WRONG_LAST_SEQUENCE_IN_FLIGHT,
        DUPLICATE_IN_FLIGHT,
        DUPLICATE_IN_BATCH,
    }
)
"""Answers that mean: another append was first. It may have been our own."""
NOT_FOUND: Final = 404
_UNAVAILABLE: Final = 503
_NO_STORE: Final = 10049
"""Seen once, on a busy machine, when a stream was made anew right after it had been deleted."""


class Refused(Exception):
    """The server understood and said no."""

    def __init__(self, status: int, code: int, description: str) -> None:
        super().__init__(f"{status}/{code}: {description}")
        self.status = status
        self.code = code
        self.description = description

    @property
    def passing(self) -> bool:
        """Whether the same call may succeed a moment later."""
        return self.status == _UNAVAILABLE or self.code == _NO_STORE


class Unanswered(Exception):
    """No answer in time: the call may or may not have had its effect."""


class Closed(LogError):
    """The connection was closed by its owner; nothing will answer any more."""


class Patience:
    """How often and how long to repeat: pauses that grow, until the time is used up."""

    def __init__(self, *, seconds: float | None = None) -> None:
        """`seconds` are INSIST_SECONDS unless told."""
        patience_s = INSIST_SECONDS if seconds is None else seconds
        self._until = asyncio.get_running_loop().time() + patience_s
        self._pause_s = _PAUSE_FIRST_SECONDS

    @property
    def left(self) -> bool:
        return asyncio.get_running_loop().time() < self._until

    async def pause(self) -> None:
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _PAUSE_MAX_SECONDS)

"""The timers port: durable time. A timer survives any restart and fires once it is due.

Delivery is at least once: the handler of a wake-up must be idempotent, which commands are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import datetime
from typing import Protocol

import msgspec


class Wake(msgspec.Struct, frozen=True, kw_only=True):
    """A timer that is due."""

    timer: str
    payload: bytes
    done: Callable[[], Awaitable[None]]
    """Call it when the wake-up was handled; otherwise it comes again after a while."""


class Timers(Protocol):
    """Named one-shot timers."""

    async def set(self, timer: str, *, due: datetime, payload: bytes) -> None:
        """Fire at `due` (UTC, fractions of a second count; the past fires at once).

        `timer` is dotted identifiers, `<kind>.<tenant>.<id>`; setting it again replaces it.
        """
        ...

    async def cancel(self, timer: str) -> None:
        """Forget a timer that has not fired; silent if there is none."""
        ...

    def wakes(self, kind: str) -> AsyncIterator[Wake]:
        """Every due timer of a kind, for ever; each goes to one of the processes that ask."""
        ...

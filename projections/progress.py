"""Waiting until read models have reached a position.

A projector in this process wakes the waiters when it has committed. When it runs elsewhere, the
checkpoint is looked up while, and only while, somebody waits: one look-up for all who wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from events.event import Position
from projections.errors import DatabaseError
from projections.pool import Pool

POLL_SECONDS: Final = 0.01
_CHECKPOINTS: Final = "SELECT name, position FROM switchback.checkpoint WHERE state = 'live'"


class Progress:
    """What is known of the live checkpoints. A hint: readers check what they read by itself."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: Mapping[str, Position] = {}
        self._moved = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None
        self._waiting = 0

    def applied(self, positions: Mapping[str, Position]) -> None:
        """Tell what the live checkpoints are now, and wake whoever waits."""
        self._known = {**self._known, **positions}
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    def forget(self, names: Sequence[str]) -> None:
        """What was known turned out to be wrong: look again."""
        self._known = {name: at for name, at in self._known.items() if name not in names}

    async def wait(self, names: Sequence[str], position: Position, *, deadline: float) -> bool:
        """Whether all of them reached the position before `deadline` (event loop time)."""
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline):
                while not self._reached(names, position):
                    self._look()
                    await self._moved.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting -= 1
        return True

    def _reached(self, names: Sequence[str], position: Position) -> bool:
        return all(self._known.get(name, 0) >= position for name in names)

    def _look(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        while self._waiting:
            try:
                rows = await self._pool.fetch(_CHECKPOINTS)
            except DatabaseError:
                self._known = {}  # the waiters' own reads say what is wrong
            else:
                found = {row["name"]: row["position"] for row in rows}
                if found != self._known:
                    self._known = {}
                    self.applied(found)
            await asyncio.sleep(POLL_SECONDS)

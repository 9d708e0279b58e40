"""Feeding the fold: from a snapshot, then from the log, for ever.

Guarantees: events are folded in order, each once; when the log is away the fold stays as it was
(fail static) and goes on when it is back. What cannot be read or folded is passed over, counted and
logged: one bad message must not freeze the routing of everything else. The projector stops at it.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any, Final

import msgspec
import structlog
from rpds import HashTrieMap

from engine.routing import RoutingError
from events import EventLog, LogError, MalformedEvent, Position, Recorded
from handlers.routes import Snapshot
from handlers.routing import Routing
from projections.snapshots import Snapshots

_log = structlog.get_logger(__name__)

RESUBSCRIBE_SECONDS: Final = 0.2
SNAPSHOT_EVENTS: Final = 1_000
"""A snapshot is kept after so many events, or as many as there are entities if those are more: a
restart folds about as many again, and encoding the fold (28 us an entity) stays a small share."""


class Follower:
    """Keeps one fold at the head of the log."""

    def __init__(
        self, routing: Routing, log: EventLog, *, snapshots: Snapshots | None = None
    ) -> None:
        self._routing = routing
        self._log = log
        self._snapshots = snapshots
        self._saved: Position = 0
        self.following = False
        """Whether the log is being read at this moment."""
        self.passed_over = 0
        """Messages that could not be read or folded."""

    async def run(self) -> None:
        """Until cancelled."""
        await self._bootstrap()
        while True:
            try:
                await self._follow()
            except MalformedEvent as error:
                self._pass_over(error.position, str(error))
            except LogError as error:
                self.following = False
                _log.warning("routing is static: the log is away", error=str(error))
                await asyncio.sleep(RESUBSCRIBE_SECONDS)

    async def _follow(self) -> None:
        await self._log.position()  # it may answer long before there is something to fold
        self.following = True
        async for batch in self._log.subscribe_batches(after=self._routing.position):
            for recorded in batch:
                self._fold(recorded)
            await self._save()

    def _fold(self, recorded: Recorded) -> None:
        try:
            self._routing.apply(recorded)
        except Exception as error:  # whatever a bad event breaks, the rest goes on
            _log.exception("event cannot be folded", position=recorded.position)
            self._pass_over(recorded.position, str(error))

    def _pass_over(self, position: Position, reason: str) -> None:
        self.passed_over += 1
        self._routing.skip_to(position)
        _log.error("routing passed over a message", position=position, reason=reason)

    async def _bootstrap(self) -> None:
        if self._snapshots is None:
            return
        try:
            found = await self._snapshots.load()
            if found is None:
                return
            snapshot = decode_snapshot(found[1])
            if await self._is_of_this_log(snapshot):
                self._routing.restore(snapshot)
                self._saved = snapshot.position
        except (ValueError, LogError, RoutingError) as error:  # whatever a cache can hold
            _log.warning("snapshot not used: folding the whole log", error=str(error))

    async def _is_of_this_log(self, snapshot: Snapshot) -> bool:
        """A cache may outlive its log: the event the snapshot ends with must be in its place."""
        if snapshot.last_event is None or snapshot.position > await self._log.position():
            return False
        batches = self._log.subscribe_batches(after=snapshot.position - 1, batch_max=1)
        async with aclosing(batches):
            async for batch in batches:
                return batch[0].id == snapshot.last_event
        return False

    async def _save(self) -> None:
        due = self._saved + max(SNAPSHOT_EVENTS, self._routing.entities)
        if self._snapshots is None or self._routing.position < due:
            return
        if self._routing.last_event is None:
            return  # nothing to know its log by
        self._saved = self._routing.position
        try:
            encoded = encode_snapshot(self._routing.snapshot())
        except (OverflowError, TypeError, ValueError) as error:  # JSON holds more than MessagePack
            _log.error("no snapshot: a restart folds the whole log", error=str(error))
            return
        await self._snapshots.save(self._saved, encoded)


def encode_snapshot(snapshot: Snapshot) -> bytes:
    return _encoder.encode(snapshot)


def decode_snapshot(encoded: bytes) -> Snapshot:
    """Raises ValueError, InvalidIdentifier."""
    return _decoder.decode(encoded)


def _plain(value: Any) -> Any:
    if isinstance(value, HashTrieMap):
        return dict(value.items())
    raise TypeError(f"{type(value).__name__} cannot be in a snapshot")


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_decoder = msgspec.msgpack.Decoder(Snapshot)

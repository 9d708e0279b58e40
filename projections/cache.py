"""Rows in Redis, fenced: an older value is never served after a newer one.

One key per projection, the *state* `<token>:<position>`, says which generation of entries counts
and up to which position the projector wrote all of them. An entry `<token>:<position>:<value>`
of another generation does not exist. Everything that is written proves itself against the state:

- The projector writes a batch after its commit, as a compare-and-set of the state it knew before
  its transaction. When the state is another one (flushed, restarted from an old file, a write that
  was lost, a second projector), nothing is written and a new generation begins, empty.
- A reader who missed fills with the state it saw *before* it read Postgres; refused if that moved.
- Both set an entry only if it is newer. A deletion is an entry without value, with its position.

The state lives only while a projector keeps it (`Cache.keep`): when nobody vouches for the entries,
they are gone for readers within STATE_SECONDS. Readers never wait for Redis: an error or a time-out
is a miss, and after a few of them Redis is left alone for a while.

Not guaranteed: that an entry is as new as Postgres. For the moment between a commit and the write
of its entries, in other processes than the projector's, it may be a change behind; when the
projector alone cannot reach Redis, that moment lasts up to STATE_SECONDS. Whoever cares names a
minimum position.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Self

import msgspec
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from events.event import Position
from projections.breaker import Breaker
from projections.cache_scripts import FILL, WRITE
from projections.projection import Projection

ENTRY_SECONDS: Final = 3_600
STATE_SECONDS: Final = 10
KEEP_SECONDS: Final = 2.0
ENTRIES_PER_WRITE_MAX: Final = 500
"""For a larger batch (a replay), `begin` a new generation instead."""
_READ_SECONDS: Final = 0.1
_WRITE_SECONDS: Final = 0.3
_CONNECTIONS_MAX: Final = 16


class CacheStats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts since the start."""

    hits: int
    misses: int
    """No entry of this generation, or one that does not reach the minimum position."""
    errors: int
    """Questions that Redis failed or was too slow for."""
    spared: int
    """Questions not asked because it had just failed."""
    fills: int
    """Fills taken by the script."""
    refused_fills: int
    """Fills that came too late: the state had moved, or the entry was newer."""
    writes: int
    """Batches written by the projector here."""
    generations: int
    """Generations begun by the projector here."""


class Hit(msgspec.Struct, frozen=True):
    """The value, or None for what is known to be deleted."""

    value: bytes | None


class Miss(msgspec.Struct, frozen=True):
    """Nothing usable; `state` is what a fill must prove itself with, None when it may not fill."""

    key: str
    state: str | None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A row as the projector writes it."""

    tenant: str
    id: str
    position: Position
    value: bytes | None
    """None: deleted."""


class Cache:
    """The fenced cache of one Redis server. Use as an async context manager."""

    def __init__(self, url: str, *, token: Callable[[], str] = lambda: secrets.token_hex(8)):
        self._redis: Redis = Redis(
            connection_pool=BlockingConnectionPool.from_url(
                url,
                max_connections=_CONNECTIONS_MAX,
                timeout=_READ_SECONDS,
                socket_connect_timeout=_READ_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )
        )
        self._token = token
        self._write = self._redis.register_script(WRITE)
        self._fill = self._redis.register_script(FILL)
        self._breaker = Breaker()
        self._states: dict[str, str] = {}
        """Projector only: state key -> the state after our last write; absent when not known."""
        self._positions: dict[str, Position] = {}
        """Projector only: state key -> what this process has applied. Readers beside it heed it: a
        write that failed, or is under way, makes them miss."""
        self._writing = asyncio.Lock()
        self._counts = dict.fromkeys(CacheStats.__struct_fields__, 0)

    @property
    def stats(self) -> CacheStats:
        return CacheStats(**self._counts)

    async def get(
        self, projection: Projection, tenant: str, id: str, *, min_position: Position = 0
    ) -> Hit | Miss:
        """One round trip; never raises for what Redis does."""
        key = f"{_prefix(projection)}:{tenant}:{id}"
        answer = await self._ask(
            _READ_SECONDS, lambda: self._redis.mget(_state_key(projection), key)
        )
        state, entry = answer or (None, None)
        if state is not None and self._is_behind(_state_key(projection), state):
            state = None
        if state is not None and entry is not None:
            token, _, applied = state.rpartition(b":")
            if entry.startswith(token + b":") and int(applied) >= min_position:
                self._counts["hits"] += 1
                return Hit(entry.split(b":", 2)[2] or None)
        self._counts["misses"] += 1
        return Miss(key, state.decode() if state is not None else None)

    async def fill(
        self, projection: Projection, miss: Miss, *, position: Position, value: bytes
    ) -> None:
        """Offer what Postgres answered after `miss`; never raises for what Redis does."""
        if miss.state is None:
            return
        keys = [_state_key(projection), miss.key]
        arguments: list[Any] = [miss.state, position, value, ENTRY_SECONDS]
        taken = await self._ask(_READ_SECONDS, lambda: self._fill(keys=keys, args=arguments))
        self._counts["fills" if taken else "refused_fills"] += 1

    async def write(
        self,
        projection: Projection,
        entries: Sequence[Entry],
        *,
        expected: Position,
        position: Position,
    ) -> None:
        """After a commit that took the projection from `expected` to `position`.

        Never raises for what Redis does: a write that failed makes the next one, or `keep`, begin a
        new generation.
        """
        key = _state_key(projection)
        async with self._writing:
            self._positions[key] = position
            known = self._states.pop(key, "")
            if known.endswith(f":{expected}"):
                await self._advance(projection, entries, known, position)
            else:
                await self._advance(projection, (), "", position)

    async def begin(self, projection: Projection, position: Position) -> None:
        """Begin a new generation: whatever there was is gone. For rebuilt tables."""
        async with self._writing:
            self._positions[_state_key(projection)] = position
            await self._advance(projection, (), "", position)

    async def keep(self, projections: Sequence[Projection]) -> None:
        """Vouch for the entries, for ever; repairs what failed. Run by the projector."""
        while True:
            for projection in projections:
                await self._keep(projection)
            await asyncio.sleep(KEEP_SECONDS)

    async def close(self) -> None:
        await self._redis.aclose(close_connection_pool=True)  # a pool that was passed in stays open

    def _is_behind(self, key: str, state: bytes) -> bool:
        """Whether this process has itself applied more than the entries reflect."""
        return _position_of(state.decode()) < self._positions.get(key, 0)

    async def _keep(self, projection: Projection) -> None:
        key = _state_key(projection)
        async with self._writing:
            if key not in self._positions:
                return
            state = await self._ask(_WRITE_SECONDS, lambda: self._redis.get(key))
            if state is not None and state.decode() == self._states.get(key):
                await self._ask(_WRITE_SECONDS, lambda: self._redis.expire(key, STATE_SECONDS))
            elif state is None or _position_of(state.decode()) < self._positions[key]:
                await self._advance(projection, (), "", self._positions[key])
            # else another projector is ahead of us and vouches for its own

    async def _advance(
        self, projection: Projection, entries: Sequence[Entry], known: str, position: Position
    ) -> None:
        key, prefix = _state_key(projection), _prefix(projection)
        keys = [key, *(f"{prefix}:{entry.tenant}:{entry.id}" for entry in entries)]
        arguments: list[Any] = [known, self._token(), position, STATE_SECONDS, ENTRY_SECONDS]
        for entry in entries:
            arguments += (entry.position, entry.value or b"")
        state = await self._ask(_WRITE_SECONDS, lambda: self._write(keys=keys, args=arguments))
        if state is None:
            self._states.pop(key, None)
            return
        self._states[key] = state.decode()
        chained = known != "" and _token_of(self._states[key]) == _token_of(known)
        self._counts["writes" if chained else "generations"] += 1

    async def _ask(self, limit_s: float, question: Callable[[], Awaitable[Any]]) -> Any:
        """What Redis answers; None when it fails, is too slow, or is being left alone."""
        if not self._breaker.admits():
            self._counts["spared"] += 1
            return None
        cancellations = _cancellations()
        try:
            async with asyncio.timeout(limit_s):
                answer = await question()
        except (RedisError, OSError, TimeoutError):
            self._counts["errors"] += 1
            self._breaker.failed()
            answer = None
        else:
            self._breaker.succeeded()
        if _cancellations() > cancellations:
            # Seen with redis 8.1: a cancellation while it reconnects comes out as another error.
            raise asyncio.CancelledError
        return answer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _prefix(projection: Projection) -> str:
    return f"sb:{projection.name}:{projection.version}"


def _state_key(projection: Projection) -> str:
    return f"{_prefix(projection)}:state"


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


def _position_of(state: str) -> Position:
    return int(state.rpartition(":")[2])


def _token_of(state: str) -> str:
    return state.partition(":")[0]

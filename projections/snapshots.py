"""The newest copy of a fold of the log, kept in Redis: a process need not begin at event one.

A snapshot is a hint: who has none folds the whole log. Only a newer one replaces an older one, and
its key names the version of its format.
"""

from __future__ import annotations

from typing import Final

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from events.event import Position

_log = structlog.get_logger(__name__)

_TIMEOUT_SECONDS: Final = 1.0
_TTL_SECONDS: Final = 7 * 24 * 3600
_SET_IF_NEWER: Final = """
local known = redis.call('HGET', KEYS[1], 'position')
if known and tonumber(known) >= tonumber(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'position', ARGV[1], 'state', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""


class Snapshots:
    """Snapshots of one kind and format."""

    def __init__(self, url: str, *, name: str, version: int) -> None:
        self._redis = Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._key = f"sb:snapshot:{name}:{version}"

    async def load(self) -> tuple[Position, bytes] | None:
        """The newest one; None also when Redis is away."""
        try:
            position, state = await self._redis.hmget(self._key, ["position", "state"])
        except RedisError as error:
            _log.info("no snapshot", error=str(error))
            return None
        if position is None or not isinstance(state, bytes):
            return None
        return int(position), state

    async def save(self, position: Position, state: bytes) -> None:
        """Keep it, if it is newer; silent when Redis is away."""
        try:
            await self._redis.eval(
                _SET_IF_NEWER, 1, self._key, str(position), state, str(_TTL_SECONDS)
            )
        except RedisError as error:
            _log.info("snapshot not saved", error=str(error))

    async def close(self) -> None:
        await self._redis.aclose()

"""Reads of the views: as one tenant, and no older than the reader asks for.

Two walls stand between tenants: every query names its tenant, and the session reads as a role under
row-level security with `switchback.tenant` set, so that a query which forgot would still see only
its own tenant's rows.

A query and the checkpoint it reflects come from one statement, thus from one snapshot: a read with
a minimum position is right even when Postgres has just been restored to an older state.
"""

# ruff: noqa: S608 - statements are put together from constants of this file; values are arguments

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar
from weakref import WeakKeyDictionary

import asyncpg
import msgspec

from events.event import Position
from projections.errors import DatabaseRefused, DatabaseUnavailable, StalePosition
from projections.pool import Connection, Pool, PoolSettings, translated
from projections.progress import Progress

READER_ROLE: Final = "switchback_reader"
MIN_POSITION_WAIT_SECONDS: Final = 2.0
_READ_TIMEOUT_SECONDS: Final = 5.0
_NOT_INSTALLED: Final = ("42P01", "3F000")
_UNKNOWN_COLUMN: Final = "42703"

T = TypeVar("T")


class Query(Generic[T]):
    """A SELECT whose rows are decoded into `item`, and the projections it reads."""

    def __init__(self, item: type[T], *, reads: Sequence[str], sql: str) -> None:
        """`$1` is the tenant; columns are named as the fields of `item`."""
        names = ", ".join(f"'{name}'" for name in reads)
        self.sql = (
            "SELECT (SELECT min(position) FROM switchback.checkpoint"
            f" WHERE state = 'live' AND name IN ({names})),"
            f" (SELECT json_agg(q)::text FROM ({sql}) q)"
        )
        self.reads = tuple(reads)
        self.decode = msgspec.json.Decoder(list[item]).decode  # type: ignore[valid-type]


def reader_settings(settings: PoolSettings) -> PoolSettings:
    """The same server, with the time-outs of interactive reads."""
    return msgspec.structs.replace(settings, statement_timeout_s=_READ_TIMEOUT_SECONDS)


class Reader:
    """Runs queries as one tenant on a pool of its own, opened with `prepare=become_reader`."""

    def __init__(self, pool: Pool, *, progress: Progress) -> None:
        self._pool = pool
        self.progress = progress
        self._tenant_of: WeakKeyDictionary[object, str] = WeakKeyDictionary()

    async def rows(
        self, query: Query[T], tenant: str, *arguments: object, min_position: Position = 0
    ) -> list[T]:
        """All rows of a query. Raises StalePosition, DatabaseUnavailable, DatabaseTimeout."""
        actual, items = await self._ask(query, tenant, arguments)
        if actual >= min_position:
            return items
        deadline = asyncio.get_running_loop().time() + MIN_POSITION_WAIT_SECONDS
        while actual < min_position:
            self.progress.forget(query.reads)
            reached = await self.progress.wait(query.reads, min_position, deadline=deadline)
            actual, items = await self._ask(query, tenant, arguments)
            if actual < min_position and not reached:
                raise StalePosition(min_position, actual)
        return items

    async def first(
        self, query: Query[T], tenant: str, *arguments: object, min_position: Position = 0
    ) -> T | None:
        """The only row of a query, if there is one."""
        rows = await self.rows(query, tenant, *arguments, min_position=min_position)
        return rows[0] if rows else None

    async def _ask(
        self, query: Query[T], tenant: str, arguments: Sequence[object]
    ) -> tuple[Position, list[T]]:
        try:
            position, text = await self._ask_once(query.sql, tenant, arguments)
        except DatabaseRefused as error:
            if error.sqlstate in _NOT_INSTALLED:
                raise DatabaseUnavailable("the read models are not installed yet") from error
            if error.sqlstate == _UNKNOWN_COLUMN:
                raise DatabaseUnavailable("the read models are still of another version") from error
            raise
        except DatabaseUnavailable:  # the connection was dead; reading again is harmless
            position, text = await self._ask_once(query.sql, tenant, arguments)
        return position or 0, query.decode(text) if text is not None else []

    async def _ask_once(self, sql: str, tenant: str, arguments: Sequence[object]) -> Any:
        limit_s = self._pool.settings.statement_timeout_s
        async with self._pool.acquire() as connection:
            with translated("query", limit_s):
                await self._become(connection, tenant)
                return await connection.fetchrow(sql, tenant, *arguments, timeout=limit_s)

    async def _become(self, connection: Connection, tenant: str) -> None:
        """Set the session's tenant, unless it is that already: one round trip less."""
        raw = connection._con  # type: ignore[attr-defined]  # the connection itself: its proxy is new at every acquire
        if self._tenant_of.get(raw) == tenant:
            return
        self._tenant_of.pop(raw, None)
        await connection.execute("SELECT set_config('switchback.tenant', $1, false)", tenant)
        self._tenant_of[raw] = tenant


async def become_reader(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """Give up every right but reading under row-level security."""
    try:
        await connection.execute(f"SET ROLE {READER_ROLE}")
    except asyncpg.InvalidParameterValueError as error:
        raise DatabaseUnavailable("the read models are not installed yet") from error
    await connection.execute("SET default_transaction_read_only = on")

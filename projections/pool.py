"""Connections to the Postgres primary.

Guarantees: every failure is one of the errors of `projections.errors`; a connection that broke is
never handed out again; a server that went away and came back needs no new pool; a commit whose
outcome is not known is told apart from one that did not happen. Opening a pool does not need the
server: a gateway starts, and serves, without Postgres.

Replicas get a pool of their own beside this one; no write is ever decided from a replica's answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, Self, TypeAlias

import asyncpg
import msgspec
from asyncpg.pool import PoolConnectionProxy

from projections.errors import (
    CommitOutcomeUnknown,
    DatabaseError,
    DatabaseRefused,
    DatabaseTimeout,
    DatabaseUnavailable,
)

Connection: TypeAlias = "PoolConnectionProxy[asyncpg.Record]"
Prepare: TypeAlias = "Callable[[asyncpg.Connection[asyncpg.Record]], Coroutine[Any, Any, None]]"

_BROKEN: Final = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # A connection that dies in a query raises this, which is neither of the others.
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.TooManyConnectionsError,
    # We stand on a server that is no longer the primary: this connection is of no use.
    asyncpg.ReadOnlySQLTransactionError,
)
_IDLE_SECONDS: Final = 300.0
_SERVER_GRACE_SECONDS: Final = 1.0


class PoolSettings(msgspec.Struct, frozen=True, kw_only=True):
    dsn: str
    size_min: int = 1
    """Connections opened at the start, if the server is there."""
    size_max: int = 10
    connect_timeout_s: float = 5.0
    acquire_timeout_s: float = 5.0
    """How long a caller waits for a free connection."""
    statement_timeout_s: float = 30.0
    """Unless the call names its own."""
    synchronous_commit: Literal["on", "off"] = "off"
    """`off` may lose the last moments in a crash of the server. Read models lose nothing by it:
    rows and checkpoint go back together and the log is read again from there."""


class Pool:
    """Use as an async context manager."""

    def __init__(
        self,
        settings: PoolSettings,
        *,
        prepare: Prepare | None = None,
    ) -> None:
        """`prepare` runs once on every new connection."""
        self._settings = settings
        self._prepare = prepare
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    @property
    def settings(self) -> PoolSettings:
        return self._settings

    async def open(self) -> None:
        settings = self._settings
        server_timeout_ms = int((settings.statement_timeout_s + _SERVER_GRACE_SECONDS) * 1000)
        self._pool = await asyncpg.create_pool(
            settings.dsn,
            min_size=0,
            max_size=settings.size_max,
            max_inactive_connection_lifetime=_IDLE_SECONDS,
            command_timeout=settings.statement_timeout_s,
            timeout=settings.connect_timeout_s,
            init=self._prepare,
            reset=_keep_session,
            server_settings={
                "application_name": "switchback",
                "synchronous_commit": settings.synchronous_commit,
                "statement_timeout": str(server_timeout_ms),
                "idle_in_transaction_session_timeout": str(server_timeout_ms),
                "timezone": "UTC",
            },
        )
        with contextlib.suppress(DatabaseError):
            await self._warm()  # the first use says what is wrong, to whoever it concerns

    async def close(self) -> None:
        """Let statements under way finish, for as long as a statement may take."""
        if self._pool is None:
            return
        pool, self._pool = self._pool, None
        try:
            async with asyncio.timeout(self._settings.statement_timeout_s):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    async def fetch(
        self, sql: str, *arguments: object, timeout_s: float | None = None
    ) -> list[asyncpg.Record]:
        """The rows of a statement that only reads; asked once more if the connection was dead."""
        try:
            return await self._fetch(sql, arguments, timeout_s)
        except DatabaseUnavailable:
            return await self._fetch(sql, arguments, timeout_s)

    async def execute(self, sql: str, *arguments: object, timeout_s: float | None = None) -> str:
        """Run a statement in a transaction of its own; its command tag.

        Raises CommitOutcomeUnknown when the connection broke under it.
        """
        async with self.acquire() as connection:
            with translated("statement", timeout_s or self._settings.statement_timeout_s):
                try:
                    return await connection.execute(sql, *arguments, timeout=timeout_s)
                except _BROKEN as error:
                    raise CommitOutcomeUnknown(str(error) or repr(error)) from error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction: committed at the end of the block, rolled back if it raises.

        Raises CommitOutcomeUnknown when the connection broke during COMMIT; any other error means
        that nothing was committed.
        """
        limit_s = self._settings.statement_timeout_s
        async with self.acquire() as connection:
            with translated("statement", limit_s):
                transaction = connection.transaction()
                await transaction.start()
                try:
                    yield connection
                except BaseException:
                    await _roll_back(transaction, connection)
                    raise
            with translated("commit", limit_s):
                try:
                    await transaction.commit()
                except (*_BROKEN, TimeoutError, asyncio.CancelledError) as error:
                    _abandon(connection)
                    if isinstance(error, asyncio.CancelledError):
                        raise
                    raise CommitOutcomeUnknown(str(error) or repr(error)) from error

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Connection]:
        """A connection of one's own for a while. Errors inside the block are not translated."""
        pool = self._opened()
        limit_s = self._settings.acquire_timeout_s
        with translated("waiting for a connection", limit_s):
            connection = await pool.acquire(timeout=limit_s)
        try:
            yield connection
        except DatabaseUnavailable:
            await pool.expire_connections()  # its sisters to the same server are no better
            raise
        finally:
            with contextlib.suppress(*_BROKEN):  # the pool has dropped it by then
                await asyncio.shield(pool.release(connection))

    async def _fetch(
        self, sql: str, arguments: Sequence[object], timeout_s: float | None
    ) -> list[asyncpg.Record]:
        limit_s = timeout_s or self._settings.statement_timeout_s
        async with self.acquire() as connection:
            with translated("query", limit_s):
                return await connection.fetch(sql, *arguments, timeout=limit_s)

    async def _warm(self) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(self._settings.size_min):
                await stack.enter_async_context(self.acquire())

    def _opened(self) -> asyncpg.Pool[asyncpg.Record]:
        if self._pool is None:
            raise DatabaseUnavailable("the pool is not open")
        return self._pool

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


@contextlib.contextmanager
def translated(what: str, timeout_s: float) -> Iterator[None]:
    """Inside, whatever the driver raises becomes an error of ours."""
    try:
        yield
    except DatabaseError:
        raise
    except (TimeoutError, asyncpg.QueryCanceledError) as error:
        raise DatabaseTimeout(what, timeout_s) from error
    except _BROKEN as error:
        raise DatabaseUnavailable(str(error) or repr(error)) from error
    except (asyncpg.InsufficientResourcesError, asyncpg.OperatorInterventionError) as error:
        raise DatabaseUnavailable(str(error)) from error
    except asyncpg.PostgresError as error:
        raise DatabaseRefused(error.sqlstate or "", str(error)) from error


async def _keep_session(connection: asyncpg.Connection[Any]) -> None:
    """Nothing here changes a session for good, except readers, who know what they set."""


async def _roll_back(transaction: Any, connection: Connection) -> None:
    try:
        await transaction.rollback()
    except (*_BROKEN, asyncpg.PostgresError, TimeoutError):
        _abandon(connection)  # the server rolls back what a closed connection had begun


def _abandon(connection: Connection) -> None:
    """Close without a word; a connection that broke was closed already."""
    with contextlib.suppress(asyncpg.InterfaceError):
        connection.terminate()

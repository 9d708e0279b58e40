"""What is wrong with an installation, found by asking every part of it.

A check never raises for what it is there to find. It says `ok`, `note` (worth knowing, nothing to
do) or `wrong`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing
from typing import Any, Final, Literal, TypeAlias

import httpx
import msgspec

from events import EventLog, LogError, MalformedEvent, Position, connect
from events.errors import StreamMismatch
from projections import DatabaseError, DatabaseRefused, Pool, PoolSettings
from projections.cache import Cache
from projections.tables import PROJECTIONS, endpoints
from switchback.client import Credentials, CredentialsMissing
from switchback.client.credentials import read_credentials
from switchback.servers import Addresses
from switchback.settings import Settings

State: TypeAlias = Literal["ok", "note", "wrong"]

MALFORMED_MAX: Final = 100
"""So many bad messages are listed; the log is not read further."""
_GATEWAY_SECONDS: Final = 5.0
_NO_SUCH_TABLE: Final = "42P01"
_SKIPPED: Final = (
    "SELECT name, s.position, subject, reason FROM switchback.skipped s"
    " JOIN switchback.checkpoint USING (schema) WHERE state = 'live' ORDER BY s.position"
)


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One check's result."""

    part: str
    state: State
    detail: str
    position: Position | None = None
    """Of the message it is about."""
    subject: str | None = None


async def diagnose(settings: Settings, addresses: Addresses) -> AsyncIterator[Finding]:
    """Everything, part by part."""
    yield _sync_interval(settings)
    head: Position | None = None
    async with AsyncExitStack() as stack:
        try:
            log = await stack.enter_async_context(connect(addresses.nats))
            head = await log.position()
        except StreamMismatch as error:
            yield _wrong("streams", str(error))
        except LogError as error:
            yield _wrong("log", str(error))
        else:
            yield _ok("log", f"answers; {head} events")
            yield _ok("streams", "as declared")
            async for finding in _messages(log, head):
                yield finding
    async with Pool(PoolSettings(dsn=addresses.postgres)) as pool:
        async for finding in _tables(pool, head):
            yield finding
    yield await _cache(addresses.redis)
    yield await _gateway(settings)


def _sync_interval(settings: Settings) -> Finding:
    """A server does not tell; of ours we read the configuration it runs with."""
    part = "durability"
    if settings.nats_url is not None:
        return _note(part, "an external NATS: see to `sync_interval: always` in its configuration")
    path = settings.data_dir / "nats" / "nats.json"
    try:
        found: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        interval = found["jetstream"]["sync_interval"]
    except (OSError, msgspec.MsgspecError, KeyError) as error:
        return _wrong(part, f"{path}: {type(error).__name__}: {error}")
    state = _ok if interval == "always" else _wrong
    return state(part, f"NATS runs with sync_interval: {interval}")


async def _messages(log: EventLog, head: Position) -> AsyncIterator[Finding]:
    """Every message that is not one of our events."""
    position, found = 0, 0
    while position < head and found < MALFORMED_MAX:
        try:
            async with aclosing(log.subscribe_batches(after=position)) as batches:
                while position < head:
                    position = (await anext(batches))[-1].position
        except MalformedEvent as error:
            position, found = error.position, found + 1
            yield Finding(
                part="messages",
                state="wrong",
                detail=error.reason,
                position=error.position,
                subject=error.subject,
            )
    if not found:
        yield _ok("messages", "all are events")


async def _tables(pool: Pool, head: Position | None) -> AsyncIterator[Finding]:
    try:
        rows = await pool.fetch(
            "SELECT name, version, position FROM switchback.checkpoint WHERE state = 'live'"
        )
        skipped = await pool.fetch(_SKIPPED)
    except DatabaseRefused as error:
        missing = error.sqlstate == _NO_SUCH_TABLE
        yield _note("tables", "none yet") if missing else _wrong("tables", str(error))
        return
    except DatabaseError as error:
        yield _wrong("tables", str(error))
        return
    live = {row["name"]: (row["version"], row["position"]) for row in rows}
    for projection in PROJECTIONS:
        yield _table(projection.name, projection.version, live.get(projection.name), head)
    for row in skipped:
        yield Finding(
            part=f"table {row['name']}",
            state="note",
            detail=f"passed over: {row['reason']}",
            position=row["position"],
            subject=row["subject"],
        )


def _table(
    name: str, version: int, live: tuple[int, Position] | None, head: Position | None
) -> Finding:
    part = f"table {name}"
    if live is None:
        return _note(part, "not built yet")
    built, position = live
    if head is not None and position > head:
        return _wrong(part, f"at {position}, beyond the end of the log ({head}): another log's?")
    if built != version:
        return _note(part, f"version {built} is live, version {version} is wanted")
    lag = 0 if head is None else head - position
    return _ok(part, "up to date") if lag == 0 else _note(part, f"{lag} events behind")


async def _cache(url: str) -> Finding:
    async with Cache(url) as cache:
        await cache.get(endpoints.PROJECTION, "system", "")
        if cache.stats.errors:
            return _wrong("cache", "Redis does not answer; reads fall through to Postgres")
    return _ok("cache", "answers")


async def _gateway(settings: Settings) -> Finding:
    try:
        credentials = read_credentials(settings.data_dir)
    except CredentialsMissing as error:
        return _note("gateway", str(error))
    try:
        async with httpx.AsyncClient(timeout=_GATEWAY_SECONDS) as http:
            answer = await http.get(f"{credentials.url}/readyz")
    except httpx.TransportError:
        return _note("gateway", f"nothing listens at {credentials.url}")
    return _readiness(credentials, answer)


def _readiness(credentials: Credentials, answer: httpx.Response) -> Finding:
    try:
        parts: dict[str, Any] = answer.json()["parts"]
        down = [
            f"{name}: {part.get('detail') or part['state']}"
            for name, part in parts.items()
            if part["state"] != "ok"
        ]
    except (ValueError, KeyError):
        return _wrong("gateway", f"{credentials.url} is not a Switchback gateway")
    if answer.is_success and not down:
        return _ok("gateway", f"ready at {credentials.url}")
    return _wrong("gateway", "; ".join(down) or "not ready")


def _ok(part: str, detail: str) -> Finding:
    return Finding(part=part, state="ok", detail=detail)


def _note(part: str, detail: str) -> Finding:
    return Finding(part=part, state="note", detail=detail)


def _wrong(part: str, detail: str) -> Finding:
    return Finding(part=part, state="wrong", detail=detail)

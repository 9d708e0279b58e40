"""Budgets of keys, at one gateway: its ledger, and what gateways tell each other once a second.

Guarantees: see `engine.budgets.ledger` for what is admitted; a gateway that starts knows what was
told in the last minute before it admits anything; what it used is told once, also if it is sent
again. While the log is away every gateway goes on by what it knows, and tells afterwards what is
not older than a minute. Does not guarantee that the last second of a gateway that is killed is
told: what it had reserved, and told of, counts for a minute more.

Clocks of gateways that are apart shift the minute of what others used by as much.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, Final

import msgspec
import structlog

from engine.budgets import SILENT_SECONDS, Ledger, estimate
from events import (
    UNCHECKED,
    EntityId,
    EventLog,
    LogError,
    MalformedEvent,
    Metadata,
    Position,
    Recorded,
)
from events.catalogue.budgets import KeyUse, TokensUsed
from events.errors import EventTooLarge
from handlers.keys import Keyring
from handlers.spending import UNBOUNDED, Accounting, BoundedSpending, Spending

_log = structlog.get_logger(__name__)

ALL_REPORTS: Final = "obs.*.budget.*"
REPORT_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 0.5
CLOCKS_APART_SECONDS: Final = 60.0
"""How much earlier than this gateway's minute the log may have recorded what was told in it."""
KEYS_OF_REPORT_MAX: Final = 5_000
"""About a third of a megabyte."""


def steady_clock() -> Callable[[], float]:
    """Seconds since 1970, which go on evenly from now on whoever sets the clock of the machine."""
    apart = time.time() - time.monotonic()
    return lambda: apart + time.monotonic()


class _Report(msgspec.Struct, frozen=True, kw_only=True):
    """Its metadata makes a repeated append harmless."""

    entity: EntityId
    event: TokensUsed
    metadata: Metadata


class Budgets:
    """One for each gateway. `clock` is one that is never set back."""

    def __init__(
        self, *, gateway: str, log: EventLog, keyring: Keyring, clock: Callable[[], float]
    ) -> None:
        self._gateway = gateway
        self._log = log
        self._keyring = keyring
        self._clock = clock
        self._ledger = Ledger(gateway)
        self._waiting: deque[_Report] = deque()
        """What is not known to be on the log, oldest first."""
        self._position: Position = 0
        self._heard = asyncio.Condition()
        self.accounting = Accounting(self._ledger, clock)

    def spending(
        self, tenant: str, key_id: str, inputs: Any, parameters: Mapping[str, Any]
    ) -> Spending:
        """What a request takes of the budget of the key it came with; see `handlers.spending`.
        `tenant` is the key's."""
        limit = self._keyring.tokens_per_minute(tenant, key_id)
        if limit is None:
            return UNBOUNDED
        return BoundedSpending(
            self.accounting,
            (tenant, key_id),
            limit=limit,
            estimate=estimate(inputs, parameters),
        )

    async def rebuild(self) -> None:
        """Learn what was told in the last minute; before anything is admitted. Raises LogError."""
        self._position = await self._log.position()
        seconds = SILENT_SECONDS + CLOCKS_APART_SECONDS
        since = datetime.fromtimestamp(self._clock(), UTC) - timedelta(seconds=seconds)
        for tenant, state in list(self._keyring.tenants.items()):
            if all(key.tokens_per_minute is None for key in state.keys.values()):
                continue
            await self._recall(_entity(tenant), since)

    async def run(self) -> None:
        """Tell and listen, for ever; what is left is told at cancellation."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._report_always())
                tasks.create_task(self._follow())
        finally:
            self._close_reports()
            await self._send()

    async def report(self) -> None:
        """Tell what is new."""
        self._close_reports()
        await self._send()

    async def reach(self, position: Position) -> None:
        """Return once every report up to `position` is known. Bound it with asyncio.timeout."""
        async with self._heard:
            await self._heard.wait_for(lambda: self._position >= position)

    async def _recall(self, entity: EntityId, since: datetime) -> None:
        after: Position | None = 0
        while after is not None:
            try:
                async with aclosing(self._log.read(entity, after=after, since=since)) as reports:
                    async for recorded in reports:
                        self._fold(recorded)
                after = None
            except MalformedEvent as error:
                _log.error("not a report of tokens", error=str(error))
                after = error.position

    async def _report_always(self) -> None:
        while True:
            now = self._clock()
            await asyncio.sleep(REPORT_SECONDS - now % REPORT_SECONDS)
            await self.report()

    async def _follow(self) -> None:
        while True:
            try:
                async for batch in self._log.subscribe_batches(ALL_REPORTS, after=self._position):
                    for recorded in batch:
                        self._fold(recorded)
                    await self._moved(batch[-1].position)
            except MalformedEvent as error:
                await self._moved(error.position)
            except LogError as error:
                _log.warning("reports of tokens not heard", error=str(error))
                await asyncio.sleep(RETRY_SECONDS)

    def _fold(self, recorded: Recorded) -> None:
        if isinstance(recorded.event, TokensUsed):
            tenant = recorded.entity.tenant
            self._ledger.fold(recorded.id, tenant, recorded.event, now=self._clock())

    async def _moved(self, position: Position) -> None:
        async with self._heard:
            self._position = position
            self._heard.notify_all()

    def _close_reports(self) -> None:
        now = self._clock()
        at = datetime.fromtimestamp(int(now), UTC)
        for tenant, use in self._ledger.report(now=now).items():
            for keys in _parts(use):
                report = TokensUsed(gateway=self._gateway, at=at, keys=keys)
                metadata = Metadata(actor=f"gateway:{self._gateway}", time=at)
                self._waiting.append(
                    _Report(entity=_entity(tenant), event=report, metadata=metadata)
                )
        moot = at - timedelta(seconds=SILENT_SECONDS + 1)
        while self._waiting and self._waiting[0].event.at < moot:
            self._waiting.popleft()

    async def _send(self) -> None:
        """In order, so that a report that is late is later than those before it."""
        while self._waiting:
            report = self._waiting[0]
            try:
                await self._log.append(
                    report.entity, [report.event], expected=UNCHECKED, metadata=report.metadata
                )
            except EventTooLarge as error:
                _log.error("report of tokens dropped", error=str(error))
            except LogError as error:
                _log.warning("reports of tokens wait", waiting=len(self._waiting), error=str(error))
                return
            if self._waiting and self._waiting[0] is report:
                self._waiting.popleft()


def _entity(tenant: str) -> EntityId:
    return EntityId(tenant, "budget", tenant)


def _parts(use: Mapping[str, KeyUse]) -> Iterator[dict[str, KeyUse]]:
    items = iter(use.items())
    while part := dict(islice(items, KEYS_OF_REPORT_MAX)):
        yield part

"""Every live gateway: which there are, and whether they have applied a position.

A gateway holds the lease `gateway.<id>` and answers on `gateway.<id>.applied`. A command that must
hold everywhere asks each of them; one that died is passed over once its lease has run out.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import msgspec
import structlog

from events import Position
from events.bus import Bus
from events.errors import LeaseLost, LogUnavailable, NoResponders, RemoteFailure, RequestTimeout
from events.leases import Leases
from handlers.reactions.leader import keep, let_go
from handlers.routing import Routing

_log = structlog.get_logger(__name__)

ASK_SECONDS: Final = 1.0
REJOIN_SECONDS: Final = 0.5


class Gateways:
    """The other gateways' side, and our own."""

    def __init__(self, *, gateway_id: str, routing: Routing, bus: Bus, leases: Leases) -> None:
        self._gateway_id = gateway_id
        self._routing = routing
        self._bus = bus
        self._leases = leases
        self._live: set[str] = set()

    async def run(self) -> None:
        """Take part until cancelled."""
        service = await self._bus.serve(
            _subject(self._gateway_id), self._answer, queue=self._gateway_id
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._hold())
                tasks.create_task(self._watch())
        finally:
            await service.stop()

    async def applied(self, position: Position) -> None:
        """Return once every live gateway routes by the log up to `position`."""
        others = self._live - {self._gateway_id}
        await asyncio.gather(
            self._routing.reach(position), *(self._ask(other, position) for other in others)
        )

    async def _ask(self, gateway: str, position: Position) -> None:
        payload = msgspec.msgpack.encode(position)
        while gateway in self._live:
            try:
                await self._bus.request(_subject(gateway), payload, timeout_s=ASK_SECONDS)
            except RequestTimeout:
                continue
            except (NoResponders, RemoteFailure, LogUnavailable):  # at once: without a pause
                await asyncio.sleep(self._leases.ttl_s / 10)  # nothing else would ever run
            else:
                return

    async def _answer(self, _subject: str, payload: bytes) -> bytes:
        await self._routing.reach(msgspec.msgpack.decode(payload, type=int))
        return msgspec.msgpack.encode(self._routing.position)

    async def _hold(self) -> None:
        name = f"gateway.{self._gateway_id}"
        while True:
            with contextlib.suppress(LogUnavailable, LeaseLost):
                lease = await self._leases.acquire(name, holder=self._gateway_id)
                if lease is not None:
                    try:
                        await keep(self._leases, lease)
                    except asyncio.CancelledError:
                        await let_go(self._leases, name, holder=self._gateway_id)
                        raise
            await asyncio.sleep(REJOIN_SECONDS)

    async def _watch(self) -> None:
        while True:
            try:
                async for change in self._leases.watch("gateway"):
                    gateway = change.name.removeprefix("gateway.")
                    if change.lease is None:
                        self._live.discard(gateway)
                    else:
                        self._live.add(gateway)
            except LogUnavailable as error:
                _log.warning("gateways not watched", error=str(error))
                await asyncio.sleep(REJOIN_SECONDS)


def _subject(gateway: str) -> str:
    return f"gateway.{gateway}.applied"

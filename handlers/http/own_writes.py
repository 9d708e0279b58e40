"""Reading your own writes without asking for it.

A client that names no `Switchback-Min-Position` still expects to see what this gateway has just
told it was done. So reads wait a moment for the tenant's last command here. Only a moment: when the
tables are late or away, such a read answers with what there is, while one that names a position is
told `stale`.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from litestar.types import Message, Send

from events.event import Position
from projections.queries import Queries

WAIT_SECONDS: Final = 1.0
LATE_SECONDS: Final = 2.0
"""After a wait in vain, how long the tenant's reads do not wait again."""
TENANTS_MAX: Final = 10_000
_HEADER: Final = b"switchback-position"


class OwnWrites:
    """The last command of each tenant on this gateway."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._last: OrderedDict[str, Position] = OrderedDict()
        self._late_until: dict[str, float] = {}
        """Tenant -> event loop time; those who waited in vain."""

    async def floor(self, tenant: str) -> Position:
        """The position the tenant's reads can reflect and should; 0 for any."""
        position = self._last.get(tenant, 0)
        now = asyncio.get_running_loop().time()
        if not position or now < self._late_until.get(tenant, 0.0):
            return 0
        if await self._queries.caught_up(position, within_s=WAIT_SECONDS):
            self._late_until.pop(tenant, None)
            return position
        self._late_until[tenant] = now + WAIT_SECONDS + LATE_SECONDS
        return 0

    def noting(self, tenant: str, send: Send) -> Send:
        """`send`, which also takes down the position of the command it answers."""

        async def note(message: Message) -> None:
            if message["type"] == "http.response.start":
                for name, value in message["headers"]:
                    if name.lower() == _HEADER:
                        self._note(tenant, int(value))
            await send(message)

        return note

    def _note(self, tenant: str, position: Position) -> None:
        self._last[tenant] = max(position, self._last.pop(tenant, 0))
        while len(self._last) > TENANTS_MAX:
            forgotten, _ = self._last.popitem(last=False)
            self._late_until.pop(forgotten, None)

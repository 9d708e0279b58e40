"""A node whose lease ran out is lost: the log says so, and nothing on it counts as resident."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

import structlog

from engine.decisions import node
from engine.decisions.decider import Refused
from events import EntityId, LogError, Metadata
from events.event import SYSTEM_TENANT
from events.leases import Leases
from handlers.commands import CommandHandler
from handlers.routing import Routing

_log = structlog.get_logger(__name__)


class Liveness:
    """The reaction. Run it under a lease."""

    def __init__(
        self,
        *,
        routing: Routing,
        commands: CommandHandler,
        leases: Leases,
        now: Callable[[], datetime],
    ) -> None:
        self._routing = routing
        self._commands = commands
        self._leases = leases
        self._now = now

    async def run(self) -> None:
        """For ever. A node is declared lost after two looks in a row without a lease."""
        missing: frozenset[str] = frozenset()
        while True:
            await asyncio.sleep(self._leases.ttl_s)
            try:
                unheld = await self._without_lease()
                for node_id in sorted(unheld & missing):
                    await self._lose(node_id)
            except (LogError, Refused) as error:
                _log.warning("liveness not checked", error=str(error))
                continue
            missing = unheld

    async def _without_lease(self) -> frozenset[str]:
        expected = {node_id for node_id, state in self._routing.nodes.items() if state.alive}
        held = {name.removeprefix("node.") for name in await self._leases.held("node")}
        return frozenset(expected - held)

    async def _lose(self, node_id: str) -> None:
        await self._commands.handle(
            node.DECIDER,
            EntityId(SYSTEM_TENANT, "node", node_id),
            node.Lose(reason="its lease ran out"),
            metadata=Metadata(time=self._now(), actor="reaction:liveness"),
        )
        _log.warning("node lost", node=node_id)

"""Nodes. They belong to no tenant."""

from __future__ import annotations

from engine.decisions import node as nodes
from events import EntityId, Metadata
from events.event import SYSTEM_TENANT
from handlers.http.views import Applied
from handlers.operations.base import OperationsBase, applied


class NodeOperations(OperationsBase):
    async def drain_node(self, *, node: str, reason: str, metadata: Metadata) -> Applied:
        """The node finishes what it has and takes no new version."""
        entity = EntityId(SYSTEM_TENANT, "node", node)
        command = nodes.Drain(reason=reason)
        return applied(
            await self._commands.handle(nodes.DECIDER, entity, command, metadata=metadata)
        )

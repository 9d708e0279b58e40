"""Nodes, which belong to no tenant, and the versions on them, which do."""

from __future__ import annotations

import asyncio

from engine.decisions import model as models
from engine.decisions import node as nodes
from events import EntityId, Metadata, Position
from events.catalogue.nodes import VersionRef
from events.event import SYSTEM_TENANT
from handlers.http.views import Applied
from handlers.nodes import LoadRefused
from handlers.operations.base import OperationsBase, applied


class NodeOperations(OperationsBase):
    async def drain_node(self, *, node: str, reason: str, metadata: Metadata) -> Applied:
        """The node finishes what it has and takes no new version."""
        entity = EntityId(SYSTEM_TENANT, "node", node)
        command = nodes.Drain(reason=reason)
        return applied(
            await self._commands.handle(nodes.DECIDER, entity, command, metadata=metadata)
        )

    async def load_version(self, tenant: str, *, model: str, version: str | None) -> Position:
        """Have the version resident on the nodes, or with None every version that may be used.

        Returns a position at which it is so, when this process has folded it. A version that no
        endpoint needs stays until it is unloaded, or its memory is wanted. Raises UnknownModel,
        UnknownVersion, VersionIsRetired, LoadRefused, NoNodes.
        """
        position, state = await self._model(tenant, model)
        if version is not None and version not in state.versions:
            raise models.UnknownVersion(version)
        if version in state.retired:
            raise models.VersionIsRetired(version or "")
        wanted = state.usable if version is None else {version}
        refs = [VersionRef(tenant, model, each) for each in sorted(wanted)]
        loaded = await self._nodes.ensure_resident(refs, position=position)
        await self._routing.reach(loaded)
        resident = self._routing.resident(tenant, model)
        for ref in refs:
            if ref.version not in resident:
                raise LoadRefused(
                    ref, "gone again: not enough memory for all, or unloaded by request"
                )
        return loaded

    async def unload_version(self, tenant: str, *, model: str, version: str | None) -> Position:
        """Have the version gone from the nodes, or with None every version of the model.

        Returns a position at which it is so, when this process has folded it. Raises UnknownModel,
        UnknownVersion, VersionRouted if an endpoint needs one of them (and unloads none then),
        UnloadRefused.
        """
        await self._routing.reach(await self._commands.log.position())
        _, state = await self._model(tenant, model)
        if version is not None and version not in state.versions:
            raise models.UnknownVersion(version)
        unwanted = state.versions if version is None else {version}
        refs = [VersionRef(tenant, model, each) for each in sorted(unwanted)]
        for ref in refs:
            if needed_by := self._routing.routed_by(ref):
                raise models.VersionRouted(ref.version, needed_by)
        position = self._routing.position
        gone = await asyncio.gather(*(self._nodes.unload(ref, position=position) for ref in refs))
        await self._routing.reach(max(gone, default=position))
        return max(gone, default=position)

    async def _model(self, tenant: str, model: str) -> tuple[Position, models.Model]:
        position, state = await self._commands.load(
            models.DECIDER, EntityId(tenant, "model", model)
        )
        if state is None:
            raise models.UnknownModel
        return position, state

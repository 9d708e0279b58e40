"""Models, versions, aliases."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from engine.decisions import model as models
from engine.runtimes import ArtifactRefused, resolve_artifact
from events import EntityId, Event, InvalidIdentifier, Metadata, Position
from events.catalogue.models import Artifact, VersionRegistered
from events.catalogue.nodes import VersionRef
from handlers.commands import Outcome
from handlers.http.views import Applied, ModelApplied, VersionApplied
from handlers.operations.base import OperationsBase, applied
from projections import results

ANCESTORS_MAX: Final = 1_000
"""How far up a lineage is followed when a version is registered."""


class ModelOperations(OperationsBase):
    async def register_model(
        self,
        tenant: str,
        *,
        model: str,
        description: str,
        labels: Mapping[str, str],
        metadata: Metadata,
    ) -> ModelApplied:
        """Registered already: the first position. Raises QuotaReached too."""
        self._check_quota(tenant, "models", model)
        command = models.RegisterModel(name=model, description=description, labels=dict(labels))
        outcome = await self._on_model(tenant, model, command, metadata)
        state = _existing(outcome)
        return ModelApplied(
            position=await self._position_of(tenant, model, outcome, state.registered),
            changed=bool(outcome.events),
            aliases=dict(state.aliases),
        )

    async def register_version(
        self,
        tenant: str,
        *,
        model: str,
        version: str,
        runtime: str,
        config: Mapping[str, Any],
        artifact: Artifact | None,
        parent: str | None,
        memory_bytes: int | None,
        labels: Mapping[str, str],
        metrics: Mapping[str, float],
        metadata: Metadata,
    ) -> VersionApplied:
        """Registered already: the first position."""
        lineage = await self._lineage(tenant, parent)
        command = models.RegisterVersion(
            version=version,
            runtime=runtime,
            config=dict(config),
            artifact=artifact,
            parent=parent,
            memory_bytes=memory_bytes,
            labels=dict(labels),
            metrics=dict(metrics),
            runtimes=self._runtimes,
            known_parents=frozenset(lineage[:1]),
            ancestors=lineage[1:],
            artifact_refused=await asyncio.to_thread(self._refused, artifact),
        )
        outcome = await self._on_model(tenant, model, command, metadata)
        state = _existing(outcome)
        return VersionApplied(
            position=await self._position_of(tenant, model, outcome, state.versions[version]),
            changed=bool(outcome.events),
            state="retired" if version in state.retired else "registered",
        )

    async def move_alias(
        self, tenant: str, *, model: str, alias: str, version: str, metadata: Metadata
    ) -> results.Alias:
        command = models.MoveAlias(alias=alias, version=version)
        done = await self._on_model(tenant, model, command, metadata)
        return results.Alias(model=model, alias=alias, version=version, position=done.position)

    async def retire_version(
        self, tenant: str, *, model: str, version: str, metadata: Metadata
    ) -> Applied:
        """Refused while an endpoint routes to it, by the routing of the log's present end."""
        await self._routing.reach(await self._commands.log.position())
        ref = VersionRef(tenant=tenant, model=model, version=version)
        command = models.RetireVersion(version=version, routed_by=self._routing.routed_by(ref))
        return applied(await self._on_model(tenant, model, command, metadata))

    async def _on_model(
        self, tenant: str, model: str, command: models.Command, metadata: Metadata
    ) -> Outcome[models.State]:
        entity = EntityId(tenant, "model", model)
        return await self._commands.handle(models.DECIDER, entity, command, metadata=metadata)

    async def _position_of(
        self, tenant: str, model: str, outcome: Outcome[models.State], event: Event
    ) -> Position:
        """Where the event stands that this command wrote, or found written."""
        if outcome.events:
            return outcome.position
        async for recorded in self._commands.log.read(EntityId(tenant, "model", model)):
            if recorded.event == event:
                return recorded.position
        return outcome.position

    def _refused(self, artifact: Artifact | None) -> str | None:
        """Why the artifact's place is none that versions may come from. Looks at the files."""
        if artifact is None:
            return None
        try:
            resolve_artifact(artifact.uri, self._artifact_roots)
        except ArtifactRefused as error:
            return str(error)
        return None

    async def _lineage(self, tenant: str, version: str | None) -> tuple[str, ...]:
        """`version`, if it is registered, and all it was made from, nearest first."""
        found: list[str] = []
        while version is not None and version not in found and len(found) < ANCESTORS_MAX:
            registered = await self._registered(tenant, version)
            if registered is None:
                break
            found.append(version)
            version = registered.parent
        return tuple(found)

    async def _registered(self, tenant: str, version: str) -> VersionRegistered | None:
        model, _, number = version.partition("@")
        try:
            entity = EntityId(tenant, "model", model)
        except InvalidIdentifier:
            return None
        _, state = await self._commands.load(models.DECIDER, entity)
        return state.versions.get(number) if state is not None else None


def _existing(outcome: Outcome[models.State]) -> models.Model:
    assert outcome.state is not None, "a command that was not refused leaves a model that exists"
    return outcome.state

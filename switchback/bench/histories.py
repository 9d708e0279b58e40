"""A long, plausible log: teams that register, swap and roll back, each on a node, for weeks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

from events import EntityId, Event, Recorded
from events.catalogue.endpoints import (
    EndpointCreated,
    Policy,
    PolicySet,
    RolledBack,
    SwapCompleted,
    SwapRequested,
)
from events.catalogue.models import AliasMoved, ModelRegistered, VersionRegistered
from events.catalogue.nodes import NodeJoined, VersionLoaded, VersionRef, VersionUnloaded
from events.catalogue.tenants import TenantCreated

_START: Final = datetime(2026, 1, 1, tzinfo=UTC)
_NAMESPACE: Final = UUID("5d1a8a52-54b1-5f3e-9d63-7a1e3f7f0b9c")
_MODELS: Final = 20
"""Per tenant, each behind one endpoint."""
_VERSIONS: Final = 8
"""Per model; older ones leave the node."""
Step = tuple[EntityId, Event]


def history(events: int) -> Iterator[Recorded]:
    """The first `events` events, always the same."""
    for position, (entity, event) in enumerate(itertools.islice(_steps(), events), start=1):
        yield Recorded(
            position=position,
            entity=entity,
            event=event,
            id=uuid5(_NAMESPACE, str(position)),
            time=_START + timedelta(seconds=position),
            actor="key:k1",
            correlation_id=str(position),
        )


def _steps() -> Iterator[Step]:
    for number in itertools.count(1):
        tenant = f"team-{number}"
        yield EntityId(tenant, "tenant", tenant), TenantCreated(name=tenant)
        node = EntityId("system", "node", f"node-of-{tenant}")
        yield node, NodeJoined(memory_budget_bytes=1 << 40, runtimes=("echo",))
        for model in range(_MODELS):
            yield from _model(node, tenant, f"model-{model}")


def _model(node: EntityId, tenant: str, name: str) -> Iterator[Step]:
    model = EntityId(tenant, "model", name)
    yield model, ModelRegistered(name=name, description="classifies", labels={"team": tenant})
    for minor in range(_VERSIONS):
        yield from _version(node, model, minor)


def _version(node: EntityId, model: EntityId, minor: int) -> Iterator[Step]:
    """A version is registered, loaded, given a share, all, and now and then taken back."""
    version, before = f"1.{minor}.0", f"1.{minor - 1}.0"
    ref = VersionRef(model.tenant, model.id, version)
    endpoint = EntityId(model.tenant, "endpoint", f"{model.id}-live")
    parent = f"{model.id}@{before}" if minor else None
    yield (
        model,
        VersionRegistered(
            version=version,
            runtime="echo",
            config={"answer": minor},
            parent=parent,
            metrics={"accuracy": 0.9},
        ),
    )
    yield node, VersionLoaded(version=ref, memory_bytes=100_000, load_ms=12.5)
    if not minor:
        yield endpoint, EndpointCreated(model=model.id, version=version, policy=_all(version))
        return
    yield endpoint, PolicySet(policy=Policy(split={before: 90.0, version: 10.0}))
    yield endpoint, _requested(model, before, version)
    yield endpoint, _completed(model, before, version)
    yield model, AliasMoved(alias="live", from_version=before, to_version=version)
    if minor % 3 == 0:
        yield endpoint, _rolled_back(version, before)
        yield endpoint, _requested(model, before, version)
        yield endpoint, _completed(model, before, version)
    if minor > 1:
        old = VersionRef(model.tenant, model.id, f"1.{minor - 2}.0")
        yield node, VersionUnloaded(version=old, reason="evicted")


def _all(version: str) -> Policy:
    return Policy(split={version: 100.0})


def _requested(model: EntityId, before: str, version: str) -> SwapRequested:
    return SwapRequested(
        swap_id=f"{model.id}-{version}",
        from_version=before,
        to_version=version,
        deadline=_START + timedelta(days=365),
    )


def _completed(model: EntityId, before: str, version: str) -> SwapCompleted:
    return SwapCompleted(
        swap_id=f"{model.id}-{version}",
        from_version=before,
        to_version=version,
        policy=_all(version),
    )


def _rolled_back(version: str, before: str) -> RolledBack:
    return RolledBack(
        from_versions=(version,), to_version=before, reason="slower", policy=_all(before)
    )

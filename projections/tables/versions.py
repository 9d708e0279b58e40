"""Versions: what was registered, and whether it is retired."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import MappingProxyType
from typing import Any

from msgspec.structs import replace

from events.catalogue.models import Artifact, VersionRegistered, VersionRetired
from events.event import Position, Recorded
from projections.projection import On, Projection, Read
from projections.table import Row, Table
from projections.working import WorkingSet


class VersionRow(Row, frozen=True, kw_only=True):
    model: str
    version: str
    runtime: str
    config: dict[str, Any]
    artifact: Artifact | None
    parent: str | None
    memory_bytes: int | None
    labels: dict[str, str]
    metrics: dict[str, float]
    state: str
    """`registered` or `retired`."""
    registered_at: datetime
    registered_position: Position
    """Versions are listed in this order."""


VERSIONS = Table(
    "versions",
    VersionRow,
    key=("tenant", "model", "version"),
    indexes=[("tenant", "model", "registered_position")],
)


def _registered(rows: WorkingSet, recorded: Recorded, event: VersionRegistered) -> None:
    rows[VERSIONS].put(
        VersionRow(
            tenant=recorded.entity.tenant,
            position=recorded.position,
            model=recorded.entity.id,
            version=event.version,
            runtime=event.runtime,
            config=event.config,
            artifact=event.artifact,
            parent=event.parent,
            memory_bytes=event.memory_bytes,
            labels=event.labels,
            metrics=event.metrics,
            state="registered",
            registered_at=recorded.time,
            registered_position=recorded.position,
        )
    )


def _retired(rows: WorkingSet, recorded: Recorded, event: VersionRetired) -> None:
    version = rows[VERSIONS].get((recorded.entity.tenant, recorded.entity.id, event.version))
    if version is not None:
        rows[VERSIONS].put(replace(version, state="retired", position=recorded.position))


def _version_row(recorded: Recorded) -> Iterable[Read]:
    assert isinstance(recorded.event, VersionRetired)
    yield VERSIONS, (recorded.entity.tenant, recorded.entity.id, recorded.event.version)


PROJECTION = Projection(
    name="versions",
    version=1,
    tables=(VERSIONS,),
    on=MappingProxyType(
        {VersionRegistered: On(_registered), VersionRetired: On(_retired, _version_row)}
    ),
)

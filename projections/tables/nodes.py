"""Nodes and what is resident on them.

Residency rows belong to the tenant of the version, so a tenant sees where its own versions are; the
node rows belong to `system` and are seen by all.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import MappingProxyType
from typing import TypeAlias

from msgspec.structs import replace

from events.catalogue.nodes import (
    NodeDraining,
    NodeJoined,
    NodeLeft,
    NodeLost,
    VersionLoaded,
    VersionLoadFailed,
    VersionUnloaded,
)
from events.event import Recorded
from projections.projection import On, Projection, Read
from projections.table import Key, Row, Table, Visibility
from projections.working import WorkingSet

_VersionEvent: TypeAlias = VersionLoaded | VersionLoadFailed | VersionUnloaded


class NodeRow(Row, frozen=True, kw_only=True):
    node: str
    state: str
    """`joined`, `draining`, `lost` or `left`."""
    runtimes: tuple[str, ...]
    memory_budget_bytes: int
    memory_used_bytes: int
    updated_at: datetime


class ResidencyRow(Row, frozen=True, kw_only=True):
    model: str
    version: str
    node: str
    state: str
    """`resident` or `failed`."""
    memory_bytes: int
    load_ms: float
    reason: str | None
    detail: str | None


NODES = Table("nodes", NodeRow, key=("tenant", "node"), visibility=Visibility.SHARED)
RESIDENCY = Table(
    "residency",
    ResidencyRow,
    key=("tenant", "model", "version", "node"),
    lookup=("node",),
    visibility=Visibility.OVERSEEN,
)


def _joined(rows: WorkingSet, recorded: Recorded, event: NodeJoined) -> None:
    _empty(rows, recorded)
    rows[NODES].put(
        NodeRow(
            tenant=recorded.entity.tenant,
            position=recorded.position,
            node=recorded.entity.id,
            state="joined",
            runtimes=event.runtimes,
            memory_budget_bytes=event.memory_budget_bytes,
            memory_used_bytes=0,
            updated_at=recorded.time,
        )
    )


def _draining(rows: WorkingSet, recorded: Recorded, event: NodeDraining) -> None:
    _set_state(rows, recorded, "draining")


def _lost(rows: WorkingSet, recorded: Recorded, event: NodeLost) -> None:
    _empty(rows, recorded)
    _set_state(rows, recorded, "lost")


def _left(rows: WorkingSet, recorded: Recorded, event: NodeLeft) -> None:
    _empty(rows, recorded)
    _set_state(rows, recorded, "left")


def _loaded(rows: WorkingSet, recorded: Recorded, event: VersionLoaded) -> None:
    row = _residency(recorded, event, "resident")
    _put(rows, recorded, replace(row, memory_bytes=event.memory_bytes, load_ms=event.load_ms))


def _load_failed(rows: WorkingSet, recorded: Recorded, event: VersionLoadFailed) -> None:
    row = _residency(recorded, event, "failed")
    _put(rows, recorded, replace(row, reason=event.reason, detail=event.detail))


def _unloaded(rows: WorkingSet, recorded: Recorded, event: VersionUnloaded) -> None:
    version = event.version
    key = (version.tenant, version.model, version.version, recorded.entity.id)
    freed_bytes = _used_by(rows, key)
    rows[RESIDENCY].delete(key)
    _add_use(rows, recorded, -freed_bytes)


def _residency(recorded: Recorded, event: _VersionEvent, state: str) -> ResidencyRow:
    return ResidencyRow(
        tenant=event.version.tenant,
        position=recorded.position,
        model=event.version.model,
        version=event.version.version,
        node=recorded.entity.id,
        state=state,
        memory_bytes=0,
        load_ms=0.0,
        reason=None,
        detail=None,
    )


def _empty(rows: WorkingSet, recorded: Recorded) -> None:
    for row in rows[RESIDENCY].matching((recorded.entity.id,)):
        rows[RESIDENCY].delete(RESIDENCY.key_of(row))
        _add_use(rows, recorded, -row.memory_bytes)


def _set_state(rows: WorkingSet, recorded: Recorded, state: str) -> None:
    node = rows[NODES].get((recorded.entity.tenant, recorded.entity.id))
    if node is not None:
        rows[NODES].put(
            replace(node, state=state, position=recorded.position, updated_at=recorded.time)
        )


def _put(rows: WorkingSet, recorded: Recorded, row: ResidencyRow) -> None:
    freed_bytes = _used_by(rows, RESIDENCY.key_of(row))
    rows[RESIDENCY].put(row)
    _add_use(rows, recorded, row.memory_bytes - freed_bytes)


def _used_by(rows: WorkingSet, key: Key) -> int:
    row = rows[RESIDENCY].get(key)
    return row.memory_bytes if row is not None else 0


def _add_use(rows: WorkingSet, recorded: Recorded, change_bytes: int) -> None:
    """Adding up what changed, not all there is: a node may hold hundreds of versions."""
    node = rows[NODES].get((recorded.entity.tenant, recorded.entity.id))
    if node is None:
        return
    rows[NODES].put(
        replace(
            node,
            memory_used_bytes=node.memory_used_bytes + change_bytes,
            position=recorded.position,
            updated_at=recorded.time,
        )
    )


def _node_rows(recorded: Recorded) -> Iterable[Read]:
    yield NODES, (recorded.entity.tenant, recorded.entity.id)
    yield RESIDENCY, (recorded.entity.id,)


PROJECTION = Projection(
    name="nodes",
    version=1,
    tables=(NODES, RESIDENCY),
    on=MappingProxyType(
        {
            NodeJoined: On(_joined, _node_rows),
            NodeDraining: On(_draining, _node_rows),
            NodeLost: On(_lost, _node_rows),
            NodeLeft: On(_left, _node_rows),
            VersionLoaded: On(_loaded, _node_rows),
            VersionLoadFailed: On(_load_failed, _node_rows),
            VersionUnloaded: On(_unloaded, _node_rows),
        }
    ),
)

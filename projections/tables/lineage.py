"""Lineage: one edge from each version to the one it was made from; queries follow the edges."""

from __future__ import annotations

from types import MappingProxyType

from events.catalogue.models import VersionRegistered
from events.event import Recorded
from projections.projection import On, Projection
from projections.table import Row, Table
from projections.working import WorkingSet


class EdgeRow(Row, frozen=True, kw_only=True):
    child: str
    """`model@version`."""
    parent: str
    """`model@version`."""


LINEAGE = Table(
    "lineage", EdgeRow, key=("tenant", "child"), indexes=[("tenant", "parent", "position")]
)


def _registered(rows: WorkingSet, recorded: Recorded, event: VersionRegistered) -> None:
    if event.parent is None:
        return
    rows[LINEAGE].put(
        EdgeRow(
            tenant=recorded.entity.tenant,
            position=recorded.position,
            child=f"{recorded.entity.id}@{event.version}",
            parent=event.parent,
        )
    )


PROJECTION = Projection(
    name="lineage",
    version=1,
    tables=(LINEAGE,),
    on=MappingProxyType({VersionRegistered: On(_registered)}),
)

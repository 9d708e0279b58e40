"""Aliases: where each points now, and every move: who, when, from, to."""

from __future__ import annotations

from datetime import datetime
from types import MappingProxyType

from events.catalogue.models import AliasMoved
from events.event import Recorded
from projections.projection import On, Projection
from projections.table import Row, Table
from projections.working import WorkingSet


class AliasRow(Row, frozen=True, kw_only=True):
    model: str
    alias: str
    version: str


class AliasMoveRow(Row, frozen=True, kw_only=True):
    model: str
    alias: str
    who: str
    at: datetime
    from_version: str | None
    to_version: str


ALIASES = Table("aliases", AliasRow, key=("tenant", "model", "alias"))
ALIAS_HISTORY = Table(
    "alias_history",
    AliasMoveRow,
    key=("tenant", "model", "alias", "position"),
    append_only=True,
)


def _moved(rows: WorkingSet, recorded: Recorded, event: AliasMoved) -> None:
    rows[ALIASES].put(
        AliasRow(
            tenant=recorded.entity.tenant,
            position=recorded.position,
            model=recorded.entity.id,
            alias=event.alias,
            version=event.to_version,
        )
    )
    rows[ALIAS_HISTORY].append(
        AliasMoveRow(
            tenant=recorded.entity.tenant,
            position=recorded.position,
            model=recorded.entity.id,
            alias=event.alias,
            who=recorded.actor,
            at=recorded.time,
            from_version=event.from_version,
            to_version=event.to_version,
        )
    )


PROJECTION = Projection(
    name="aliases",
    version=1,
    tables=(ALIASES, ALIAS_HISTORY),
    on=MappingProxyType({AliasMoved: On(_moved)}),
)

"""Models, each with where its aliases point."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import MappingProxyType

from msgspec.structs import replace

from events.catalogue.models import AliasMoved, ModelRegistered
from events.event import Recorded
from projections.projection import Cached, On, Projection, Read
from projections.results import Model
from projections.table import Row, Table
from projections.working import WorkingSet


class ModelRow(Row, frozen=True, kw_only=True):
    name: str
    description: str
    labels: dict[str, str]
    aliases: dict[str, str]
    registered_at: datetime


MODELS = Table("models", ModelRow, key=("tenant", "name"))


def _registered(rows: WorkingSet, recorded: Recorded, event: ModelRegistered) -> None:
    rows[MODELS].put(
        ModelRow(
            tenant=recorded.entity.tenant,
            position=recorded.position,
            name=recorded.entity.id,
            description=event.description,
            labels=event.labels,
            aliases={},
            registered_at=recorded.time,
        )
    )


def _alias_moved(rows: WorkingSet, recorded: Recorded, event: AliasMoved) -> None:
    model = rows[MODELS].get((recorded.entity.tenant, recorded.entity.id))
    if model is not None:
        aliases = {**model.aliases, event.alias: event.to_version}
        rows[MODELS].put(replace(model, aliases=aliases, position=recorded.position))


def _model_row(recorded: Recorded) -> Iterable[Read]:
    yield MODELS, (recorded.entity.tenant, recorded.entity.id)


PROJECTION = Projection(
    name="models",
    version=1,
    tables=(MODELS,),
    on=MappingProxyType(
        {ModelRegistered: On(_registered), AliasMoved: On(_alias_moved, _model_row)}
    ),
    cached=Cached(MODELS, Model),
)

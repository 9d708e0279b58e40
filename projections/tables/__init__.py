"""Every projection there is. A new read model is one module and one line here."""

from __future__ import annotations

from typing import Final

from projections.projection import Projection
from projections.tables import (
    aliases,
    endpoints,
    events,
    lineage,
    models,
    nodes,
    rollouts,
    tenants,
    versions,
)

PROJECTIONS: Final[tuple[Projection, ...]] = (
    tenants.PROJECTION,
    models.PROJECTION,
    versions.PROJECTION,
    lineage.PROJECTION,
    aliases.PROJECTION,
    endpoints.PROJECTION,
    rollouts.PROJECTION,
    nodes.PROJECTION,
    events.PROJECTION,
)

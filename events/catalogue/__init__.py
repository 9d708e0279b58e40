"""Every event there is, by aggregate and by type. An aggregate is one module, and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from events.catalogue import budgets, endpoints, models, nodes, tenants, traffic
from events.event import Event

AGGREGATES: Final[Mapping[str, tuple[type[Event], ...]]] = MappingProxyType(
    {
        "tenant": tenants.EVENTS,
        "model": models.EVENTS,
        "endpoint": endpoints.EVENTS,
        "node": nodes.EVENTS,
        "traffic": traffic.EVENTS,
        "budget": budgets.EVENTS,
    }
)
"""Aggregate -> its event classes."""

BY_TYPE: Final[Mapping[str, type[Event]]] = MappingProxyType(
    {event.type: event for events in AGGREGATES.values() for event in events}
)
"""CloudEvents type -> event class."""

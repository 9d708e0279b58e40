"""Event, Recorded, EntityId, Metadata: the few shapes everything else is made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import ClassVar, Final, Literal, TypeAlias
from uuid import UUID, uuid4, uuid5

import msgspec

from events.errors import InvalidIdentifier

Position: TypeAlias = int
"""The stream sequence of an event: global, totally ordered, from 1. 0 is before the first event."""

IDENTIFIER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z", re.ASCII)
SYSTEM_TENANT: Final = "system"

TRAFFIC_AGGREGATES: Final = frozenset({"traffic", "budget"})
"""What gateways tell of their seconds: on a stream of its own, which drops what is old."""


class Unchecked(Enum):
    """The expectation of an append that commutes with every other append to its entity."""

    UNCHECKED = "UNCHECKED"


UNCHECKED: Final = Unchecked.UNCHECKED
Expected: TypeAlias = Position | Literal[Unchecked.UNCHECKED]
"""The position of the entity's last event (0: it must not exist yet), or UNCHECKED."""


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A fact in the past tense. Subclasses live in `events.catalogue`, one module per aggregate.

    `type` is the storage contract (`switchback.<aggregate>.<event>.v<n>`): once an event of a type
    has been written, the type's fields only ever gain optional members; anything else is a new type
    and an upcast in `events.upcasts`.
    """

    type: ClassVar[str]


def checked_identifier(what: str, value: str) -> str:
    """`value`, if it may stand in a subject. Raises InvalidIdentifier."""
    if not IDENTIFIER.match(value):
        raise InvalidIdentifier(what, value)
    return value


class EntityId(msgspec.Struct, frozen=True, order=True):
    """One thing with a history: a tenant's model, endpoint, node.

    Raises InvalidIdentifier: nothing a user types can widen a subject.
    """

    tenant: str
    aggregate: str
    id: str

    def __post_init__(self) -> None:
        checked_identifier("tenant", self.tenant)
        checked_identifier("aggregate", self.aggregate)
        checked_identifier("id", self.id)

    @property
    def subject(self) -> str:
        """The one subject that holds this entity's events."""
        root = "obs" if self.aggregate in TRAFFIC_AGGREGATES else "evt"
        return f"{root}.{self.tenant}.{self.aggregate}.{self.id}"

    @classmethod
    def of_subject(cls, subject: str) -> EntityId:
        """The inverse of `subject`. Raises InvalidIdentifier."""
        parts = subject.split(".")
        if len(parts) != 4 or parts[0] not in ("evt", "obs"):
            raise InvalidIdentifier("subject", subject)
        return cls(parts[1], parts[2], parts[3])

    def __str__(self) -> str:
        return f"{self.tenant}/{self.aggregate}/{self.id}"


def _now() -> datetime:
    return datetime.now(UTC)


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """Who caused the events of one append, when, and why. One per command."""

    command_id: UUID = msgspec.field(default_factory=uuid4)
    """Event ids are derived from it: the same command appended twice happens once."""
    time: datetime = msgspec.field(default_factory=_now)
    """When the command was taken, or decided if something had to be loaded for it first; UTC."""
    actor: str = "local"
    """Who asked: `key:<id>`, `reaction:<name>`, `node:<id>`, `local`."""
    correlation_id: str | None = None
    """The first command of the conversation this one belongs to; defaults to the command id."""
    causation_id: str | None = None
    """The id of the event or command that led to this command."""
    traceparent: str | None = None
    """W3C trace context of the request."""

    def event_id(self, index: int) -> UUID:
        """The id of the command's `index`-th event, counted over the whole append."""
        return uuid5(self.command_id, str(index))


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """An event as the log holds it."""

    position: Position
    entity: EntityId
    event: Event
    id: UUID
    time: datetime
    actor: str
    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None


class Append(msgspec.Struct, frozen=True, kw_only=True):
    """One entity's part of an atomic `append_all`."""

    entity: EntityId
    events: Sequence[Event]
    expected: Expected

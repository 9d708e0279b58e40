"""What happened: events, and the log they are written to.

An *event* is a fact in the past tense about one *entity*. The *log* is the ordered sequence of all
events; a *position* is an event's place in it. All else in Switchback is computed from the log.

    async with connect("nats://127.0.0.1:4222") as log:
        position = await log.append(entity, [ModelRegistered(name="fraud")], expected=0)
        async for recorded in log.subscribe("evt.acme.model.>", after=position): ...
"""

from events.connecting import connect
from events.errors import (
    AppendOutcomeUnknown,
    InvalidIdentifier,
    LogError,
    LogUnavailable,
    MalformedEvent,
    WrongExpectedPosition,
)
from events.event import (
    UNCHECKED,
    Append,
    EntityId,
    Event,
    Expected,
    Metadata,
    Position,
    Recorded,
)
from events.log import EventLog

__all__ = [
    "UNCHECKED",
    "Append",
    "AppendOutcomeUnknown",
    "EntityId",
    "Event",
    "EventLog",
    "Expected",
    "InvalidIdentifier",
    "LogError",
    "LogUnavailable",
    "MalformedEvent",
    "Metadata",
    "Position",
    "Recorded",
    "WrongExpectedPosition",
    "connect",
]

"""Events as CloudEvents 1.0 in structured JSON mode, and back.

One message is one event. Its subject names the entity; `source` and `subject` inside the JSON say
the same to readers elsewhere, and decoding refuses a message in which the two disagree.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Final, Literal
from uuid import UUID

import msgspec

from events.catalogue import BY_TYPE
from events.errors import InvalidIdentifier, MalformedEvent
from events.event import EntityId, Event, Metadata, Position, Recorded
from events.upcasts import UPCASTS

CONTENT_TYPE: Final = "application/cloudevents+json"


class CloudEvent(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The envelope; attribute names are those of the CloudEvents 1.0.2 JSON format."""

    specversion: Literal["1.0"]
    id: UUID
    source: str
    """`/switchback/<tenant>`."""
    type: str
    subject: str
    """`<aggregate>/<id>`."""
    time: datetime
    datacontenttype: Literal["application/json"]
    actor: str
    correlationid: str
    data: msgspec.Raw
    causationid: str | None = None
    traceparent: str | None = None
    position: Position | None = None
    """Only outside the log (exports, HTTP); on the log a message's position is its sequence."""


class _Place(msgspec.Struct, frozen=True):
    """A subject of the log, and what an envelope that stands there must say."""

    entity: EntityId
    source: str
    subject: str


_PLACES_CACHED_MAX: Final = 10_000
"""Entities come again and again; checking their names is a third of decoding."""

_encode = msgspec.json.Encoder().encode
_decode_envelope = msgspec.json.Decoder(CloudEvent).decode
_decoders: Final[dict[str, Callable[[msgspec.Raw], Event]]] = {
    type_: msgspec.json.Decoder(event).decode for type_, event in BY_TYPE.items()
}


def encode(entity: EntityId, event: Event, metadata: Metadata, index: int) -> bytes:
    """The message body of a command's `index`-th event."""
    return _encode(
        _envelope(
            entity,
            event,
            id=metadata.event_id(index),
            time=metadata.time,
            actor=metadata.actor,
            correlationid=metadata.correlation_id or str(metadata.command_id),
            causationid=metadata.causation_id,
            traceparent=metadata.traceparent,
        )
    )


def cloud_event(recorded: Recorded) -> CloudEvent:
    """A recorded event with its position, as exports and the HTTP API show it."""
    return _envelope(
        recorded.entity,
        recorded.event,
        id=recorded.id,
        time=recorded.time,
        actor=recorded.actor,
        correlationid=recorded.correlation_id,
        causationid=recorded.causation_id,
        traceparent=recorded.traceparent,
        position=recorded.position,
    )


def encode_message(recorded: Recorded) -> bytes:
    """The message body of an event that is on a log already: as `encode` wrote it, no position."""
    return _encode(msgspec.structs.replace(cloud_event(recorded), position=None))


def encode_recorded(recorded: Recorded) -> bytes:
    """`cloud_event` as one line of JSON, without the newline."""
    return _encode(cloud_event(recorded))


def decode(body: bytes, *, position: Position, subject: str) -> Recorded:
    """The event in a message. Raises MalformedEvent, which says where and why."""
    try:
        place = _place(subject)
        envelope = _decode_envelope(body)
        _check_agreement(envelope, place)
        return _recorded(envelope, place.entity, position)
    except (msgspec.MsgspecError, InvalidIdentifier, ValueError) as error:
        raise MalformedEvent(position, subject, str(error)) from error


def decode_line(line: bytes, *, position: Position) -> Recorded:
    """The event in a line written by `encode_recorded`; `position` is used if the line has none.

    Raises MalformedEvent.
    """
    try:
        envelope = _decode_envelope(line)
        entity = _entity(envelope)
        return _recorded(envelope, entity, envelope.position or position)
    except (msgspec.MsgspecError, InvalidIdentifier, ValueError) as error:
        raise MalformedEvent(position, "", str(error)) from error


def _envelope(
    entity: EntityId,
    event: Event,
    *,
    id: UUID,
    time: datetime,
    actor: str,
    correlationid: str,
    causationid: str | None,
    traceparent: str | None,
    position: Position | None = None,
) -> CloudEvent:
    return CloudEvent(
        specversion="1.0",
        id=id,
        source=f"/switchback/{entity.tenant}",
        type=event.type,
        subject=f"{entity.aggregate}/{entity.id}",
        time=time,
        datacontenttype="application/json",
        actor=actor,
        correlationid=correlationid,
        data=msgspec.Raw(_encode(event)),
        causationid=causationid,
        traceparent=traceparent,
        position=position,
    )


def _entity(envelope: CloudEvent) -> EntityId:
    source, _, tenant = envelope.source.rpartition("/")
    aggregate, _, id = envelope.subject.partition("/")
    if source != "/switchback":
        raise ValueError(f"source {envelope.source!r} is not /switchback/<tenant>")
    return EntityId(tenant, aggregate, id)


@lru_cache(maxsize=_PLACES_CACHED_MAX)
def _place(subject: str) -> _Place:
    entity = EntityId.of_subject(subject)
    return _Place(entity, f"/switchback/{entity.tenant}", f"{entity.aggregate}/{entity.id}")


def _check_agreement(envelope: CloudEvent, place: _Place) -> None:
    if envelope.source != place.source or envelope.subject != place.subject:
        stands = place.entity.subject
        raise ValueError(f"says {envelope.source} {envelope.subject}, stands on {stands}")


def _recorded(envelope: CloudEvent, entity: EntityId, position: Position) -> Recorded:
    return Recorded(
        position=position,
        entity=entity,
        event=_event(envelope.type, envelope.data),
        id=envelope.id,
        time=envelope.time,
        actor=envelope.actor,
        correlation_id=envelope.correlationid,
        causation_id=envelope.causationid,
        traceparent=envelope.traceparent,
    )


def _event(type_: str, data: msgspec.Raw) -> Event:
    decoder = _decoders.get(type_)
    if decoder is not None:
        return decoder(data)
    if type_ not in UPCASTS:
        raise ValueError(f"unknown type {type_!r}")
    old = msgspec.json.decode(data, type=dict[str, object])
    while type_ in UPCASTS:
        type_, old = UPCASTS[type_](old)
    return msgspec.convert(old, BY_TYPE[type_])

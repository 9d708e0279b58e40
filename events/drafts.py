"""Drafts: the events of one append, encoded and checked, before they are on any log.

Every log starts here, so what may be appended is the same on each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from events import codec
from events.errors import EventTooLarge
from events.event import Append, EntityId, Expected, Metadata, Recorded
from events.log import APPEND_EVENTS_MAX, EVENT_BYTES_MAX


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """One encoded event."""

    id: UUID
    body: bytes


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """One entity's part of an append."""

    entity: EntityId
    subject: str
    expected: Expected
    messages: tuple[Message, ...]


def draft(appends: Sequence[Append], metadata: Metadata) -> tuple[Draft, ...]:
    """The append as messages; event ids count over all its parts.

    Raises EventTooLarge, and ValueError for what only a programming error asks: no event, more than
    APPEND_EVENTS_MAX, or an entity named twice.
    """
    _check_shape(appends)
    index = 0
    drafts: list[Draft] = []
    for part in appends:
        drafts.append(_draft(part, metadata, index))
        index += len(part.events)
    return tuple(drafts)


def draft_recorded(recorded: Recorded) -> Message:
    """An event that is on some log already, as the message it was there."""
    return Message(id=recorded.id, body=codec.encode_message(recorded))


def _check_shape(appends: Sequence[Append]) -> None:
    count = sum(len(part.events) for part in appends)
    if count == 0 or any(not part.events for part in appends):
        raise ValueError("an append needs at least one event for each entity it names")
    if count > APPEND_EVENTS_MAX:
        raise ValueError(f"{count} events in one append; the limit is {APPEND_EVENTS_MAX}")
    if len({part.entity for part in appends}) < len(appends):
        raise ValueError("an append names an entity twice")


def _draft(part: Append, metadata: Metadata, first_index: int) -> Draft:
    messages = tuple(
        Message(
            id=metadata.event_id(index),
            body=codec.encode(part.entity, event, metadata, index),
        )
        for index, event in enumerate(part.events, start=first_index)
    )
    for message in messages:
        if len(message.body) > EVENT_BYTES_MAX:
            raise EventTooLarge(part.entity, len(message.body), EVENT_BYTES_MAX)
    return Draft(
        entity=part.entity,
        subject=part.entity.subject,
        expected=part.expected,
        messages=messages,
    )

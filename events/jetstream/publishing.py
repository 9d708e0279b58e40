"""Messages onto a stream: one as a plain publish, several as one atomic batch (ADR-50).

One attempt, nothing is repeated here. A batch is all or nothing and its messages stand next to
each other. The server keeps every header we send, expectation and batch headers too (measured on
2.15.1), so what is not needed is not sent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from uuid import uuid4

import msgspec

from events.codec import CONTENT_TYPE
from events.drafts import Draft
from events.event import UNCHECKED, Position
from events.jetstream.calls import Calls, answer

_EXPECTED_ON_SUBJECT: Final = "Nats-Expected-Last-Subject-Sequence"
_EXPECTED_ON_STREAM: Final = "Nats-Expected-Last-Sequence"


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """One message with the headers it needs."""

    subject: str
    body: bytes
    headers: dict[str, str]


def outgoing(drafts: Sequence[Draft]) -> list[Outgoing]:
    """The messages of drafts; only the first on each subject carries its expectation, since the
    server compares all of a batch with the stream as it was before it."""
    messages: list[Outgoing] = []
    for part in drafts:
        for index, message in enumerate(part.messages):
            headers = _headers(str(message.id))
            if index == 0 and part.expected is not UNCHECKED:
                headers[_EXPECTED_ON_SUBJECT] = str(part.expected)
            messages.append(Outgoing(part.subject, message.body, headers))
    return messages


def outgoing_after(
    position: Position, messages: Sequence[tuple[str, str, bytes]]
) -> list[Outgoing]:
    """(subject, message id, body) to stand right after a position of the whole stream."""
    result = [Outgoing(subject, body, _headers(id)) for subject, id, body in messages]
    result[0].headers[_EXPECTED_ON_STREAM] = str(position)
    return result


def _headers(message_id: str) -> dict[str, str]:
    return {"Nats-Msg-Id": message_id, "Content-Type": CONTENT_TYPE}


async def publish(calls: Calls, messages: Sequence[Outgoing]) -> Position:
    """The position of the last message. Raises LogUnavailable, Unanswered, Refused."""
    if len(messages) == 1:
        [only] = messages
        reply = await calls.request(only.subject, only.body, headers=only.headers)
        return int(answer(reply)["seq"])
    return await _publish_batch(calls, messages)


async def _publish_batch(calls: Calls, messages: Sequence[Outgoing]) -> Position:
    """The first and the last are requests, as the server answers only those."""
    batch_id = uuid4().hex
    for sequence, message in enumerate(messages, start=1):
        message.headers["Nats-Batch-Id"] = batch_id
        message.headers["Nats-Batch-Sequence"] = str(sequence)
    first, *middle, last = messages
    last.headers["Nats-Batch-Commit"] = "1"
    opened = await calls.request(first.subject, first.body, headers=first.headers)
    if opened.data:
        answer(opened)
    for message in middle:
        await calls.client.publish(message.subject, message.body, headers=message.headers)
    committed = await calls.request(last.subject, last.body, headers=last.headers)
    return int(answer(committed)["seq"])

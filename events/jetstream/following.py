"""Following a stream for ever: one ordered consumer after another, unseen by the reader."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Final

from events.errors import LogUnavailable, MalformedEvent
from events.event import Position
from events.jetstream.calls import Calls
from events.jetstream.consumer import ConsumerLost, Delivery, OrderedConsumer
from events.jetstream.failures import Patience, Refused
from events.jetstream.reads import OpenChannel

_BAD_PATTERN: Final = frozenset({10025, 10093, 10131, 10136})
"""Bad request, filter outside the stream, and the like: no later attempt will succeed."""


async def follow(
    calls: Calls,
    open_channel: OpenChannel,
    stream: str,
    pattern: str,
    *,
    after: Position,
    batch_max: int,
    contiguous: bool,
) -> AsyncGenerator[list[Delivery], None]:
    """Every message that matches, after a position, in order, once.

    `contiguous` says that no position may be missing; one that is, also from a second consumer, is
    MalformedEvent at the last missing position. Raises LogUnavailable when the connection was
    closed, ValueError for a pattern the stream does not hold.
    """
    patience = Patience()
    gap_at: Position | None = None
    while True:
        try:
            async with open_channel() as channel:
                consumer = OrderedConsumer(calls, channel, stream)
                await _create(consumer, stream, pattern, after)
                try:
                    while True:
                        batch = await consumer.take(batch_max)
                        patience = Patience()
                        if contiguous:
                            whole = _contiguous(batch, after)
                            if len(whole) < len(batch) and not whole and gap_at == after:
                                raise _missing(pattern, after, batch[0].position)
                            if len(whole) < len(batch):
                                gap_at = after + len(whole)
                                batch = whole
                        if batch:
                            after = batch[-1].position
                            yield batch
                        if gap_at == after:
                            raise ConsumerLost(f"position {after + 1} was not delivered")
                finally:
                    await consumer.delete()
        except ConsumerLost as error:
            if calls.client.is_closed:
                raise LogUnavailable("the connection was closed") from error
        await patience.pause()


async def _create(consumer: OrderedConsumer, stream: str, pattern: str, after: Position) -> None:
    options = {
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
        "filter_subject": pattern,
    }
    try:
        await consumer.create(options)
    except Refused as error:
        if error.code in _BAD_PATTERN:
            raise ValueError(f"stream {stream} cannot follow {pattern!r}: {error}") from error
        raise LogUnavailable(str(error)) from error


def _contiguous(batch: Sequence[Delivery], after: Position) -> list[Delivery]:
    """The part of a batch before the first missing position."""
    if batch[-1].position == after + len(batch):
        return list(batch)
    return [d for index, d in enumerate(batch, start=1) if d.position == after + index]


def _missing(pattern: str, after: Position, next_: Position) -> MalformedEvent:
    return MalformedEvent(
        next_ - 1, pattern, f"positions {after + 1} to {next_ - 1} are not on the stream"
    )

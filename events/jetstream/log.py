"""The log on NATS JetStream.

Guarantees: an append that returned is on disk (or on a quorum, see deploy/nats); events of one
entity have no gap and no fork; appending the same command again returns the position of the first
time, on every topology, also past the two-minute dedupe window and after other appends.

Two limits of the last promise. An UNCHECKED append repeated later than the dedupe window is written
twice (nothing refuses it); its readers drop repeated ids. So is a repeat whose expectation is the
entity's *present* position: whoever decides again on newer state is taken to mean it. A command
whose state shows its own effect decides on no events.

Does not guarantee: that a read which follows an append sees it on another replica. The conditional
append makes that harmless for decisions; readers that care wait for a position.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import datetime

from events import codec
from events.drafts import Draft, draft, draft_recorded
from events.errors import AppendOutcomeUnknown, LogUnavailable, MalformedEvent
from events.event import Append, EntityId, Metadata, Position, Recorded
from events.jetstream.calls import Calls
from events.jetstream.consumer import Delivery
from events.jetstream.earlier import History
from events.jetstream.failures import LOST_RACE, Patience, Refused, Unanswered
from events.jetstream.following import follow
from events.jetstream.group_commit import Drafts, GroupCommit
from events.jetstream.publishing import outgoing, outgoing_after, publish
from events.jetstream.reads import OpenChannel, direct_get, position_of
from events.jetstream.streams import Declaration
from events.log import ALL_EVENTS, APPEND_EVENTS_MAX, EventLog
from events.subjects import subject_matcher


class JetStreamLog(EventLog):
    """The log on one stream. Made by `JetStream`, which owns the connection."""

    def __init__(self, calls: Calls, open_channel: OpenChannel, declaration: Declaration) -> None:
        self._calls = calls
        self._open_channel = open_channel
        self._stream = declaration.name
        [self._everything] = declaration.subjects
        self._history = History(calls, open_channel, self._stream)
        self._commits = GroupCommit(alone=self._append_alone, together=self._publish)
        self._closed = False

    async def append_all(
        self, appends: Sequence[Append], *, metadata: Metadata | None = None
    ) -> Position:
        if self._closed:
            raise LogUnavailable("the log is closed")
        drafts = draft(appends, metadata or Metadata())
        for part in drafts:
            self._check_belongs(part.subject)
        return await self._commits.append(drafts)

    async def restore(self, recorded: Sequence[Recorded]) -> Position:
        if not recorded:
            return await self.position()
        if len(recorded) > APPEND_EVENTS_MAX:
            raise ValueError(f"{len(recorded)} events at once; the limit is {APPEND_EVENTS_MAX}")
        messages: list[tuple[str, str, bytes]] = []
        for position, event in enumerate(recorded, start=recorded[0].position):
            if event.position != position:
                raise ValueError(f"position {event.position} where {position} comes next")
            self._check_belongs(event.entity.subject)
            message = draft_recorded(event)
            messages.append((event.entity.subject, str(message.id), message.body))
        return await self._restore(recorded[0].position - 1, messages)

    async def read(
        self, entity: EntityId, *, after: Position = 0, since: datetime | None = None
    ) -> AsyncGenerator[Recorded, None]:
        subject = entity.subject
        messages = direct_get(
            self._calls, self._open_channel, self._stream, subject, after=after, since=since
        )
        async with aclosing(messages):
            async for message in messages:
                position = position_of(message)
                yield codec.decode(message.data, position=position, subject=subject)

    async def subscribe_batches(
        self, pattern: str = ALL_EVENTS, *, after: Position = 0, batch_max: int = 500
    ) -> AsyncGenerator[Sequence[Recorded], None]:
        subject_matcher(pattern)
        self._check_belongs(pattern)
        deliveries = follow(
            self._calls,
            self._open_channel,
            self._stream,
            pattern,
            after=after,
            batch_max=batch_max,
            contiguous=pattern == ALL_EVENTS == self._everything,
        )
        async with aclosing(deliveries):
            async for batch in deliveries:
                recorded, malformed = _decode(batch)
                if recorded:
                    yield recorded
                if malformed is not None:
                    raise malformed

    async def position(self) -> Position:
        info = await self._calls.insist_on(f"STREAM.INFO.{self._stream}")
        return int(info["state"]["last_seq"])

    async def begin(self) -> Position:
        info = await self._calls.insist_on(f"STREAM.INFO.{self._stream}")
        return max(0, int(info["state"]["first_seq"]) - 1)

    async def close(self) -> None:
        self._closed = True
        await self._commits.finish()

    def _check_belongs(self, subject: str) -> None:
        if not subject.startswith(self._everything.removesuffix(">")):
            raise ValueError(f"{subject} does not belong on stream {self._stream}")

    async def _publish(self, drafts: Sequence[Draft]) -> Position:
        return await publish(self._calls, outgoing(drafts))

    async def _append_alone(self, drafts: Drafts) -> Position:
        """Insist with the same ids until the outcome is known."""
        patience = Patience()
        maybe_written = False
        while True:
            try:
                return await self._publish(drafts)
            except Unanswered as error:
                maybe_written = True
                reason: Exception = error
            except LogUnavailable as error:
                reason = error
            except Refused as error:
                reason = error
                if error.code in LOST_RACE:
                    earlier = await self._earlier(drafts, maybe_written=maybe_written)
                    if earlier is not None:
                        return earlier
                elif not error.passing:
                    raise LogUnavailable(str(error)) from error
            self._give_up_unless(patience.left, maybe_written=maybe_written, reason=reason)
            await patience.pause()

    async def _earlier(self, drafts: Drafts, *, maybe_written: bool) -> Position | None:
        """The position of the first time; None when neither that nor another append explains the
        refusal: one that is still in flight on its way to a quorum."""
        try:
            return await self._history.appended(drafts)
        except LogUnavailable as error:
            if maybe_written:
                raise AppendOutcomeUnknown(f"cannot be asked: {error}") from error
            raise

    def _give_up_unless(self, hopeful: bool, *, maybe_written: bool, reason: Exception) -> None:
        if hopeful and not self._calls.client.is_closed:
            return
        if maybe_written:
            raise AppendOutcomeUnknown(f"no answer: {reason}") from reason
        raise LogUnavailable(str(reason)) from reason

    async def _restore(
        self, after: Position, messages: Sequence[tuple[str, str, bytes]]
    ) -> Position:
        patience = Patience()
        maybe_written = False
        while True:
            try:
                return await publish(self._calls, outgoing_after(after, messages))
            except (Unanswered, LogUnavailable) as error:
                maybe_written = maybe_written or isinstance(error, Unanswered)
                reason: Exception = error
            except Refused as error:
                reason = error
                if error.code in LOST_RACE and not maybe_written:
                    raise ValueError(f"position {after + 1} is not the next: {error}") from error
                if error.code not in LOST_RACE and not error.passing:
                    raise LogUnavailable(str(error)) from error
            last = after + len(messages)
            if maybe_written and await self._history.holds(last, messages[-1][1]):
                return last
            self._give_up_unless(patience.left, maybe_written=maybe_written, reason=reason)
            await patience.pause()


def _decode(batch: Sequence[Delivery]) -> tuple[list[Recorded], MalformedEvent | None]:
    """The good events up to the first that is not one of ours."""
    recorded: list[Recorded] = []
    for delivery in batch:
        message = delivery.message
        try:
            recorded.append(
                codec.decode(message.data, position=delivery.position, subject=message.subject)
            )
        except MalformedEvent as error:
            return recorded, error
    return recorded, None

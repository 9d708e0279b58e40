"""Has this append happened before? Asked after a lost race or a lost answer.

The answer comes from the leader, so it is right whoever led when the append was first sent, however
long ago that was, and whoever has written to the entity since.
"""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from events.drafts import Draft
from events.errors import WrongExpectedPosition
from events.event import UNCHECKED, Position
from events.jetstream.calls import Calls
from events.jetstream.reads import OpenChannel, direct_get, position_of


class History:
    """What the leader of one stream has."""

    def __init__(self, calls: Calls, open_channel: OpenChannel, stream: str) -> None:
        self._calls = calls
        self._open_channel = open_channel
        self._stream = stream

    async def appended(self, drafts: Sequence[Draft]) -> Position | None:
        """The position of the append's last event, if it is on the log; None if it is not and
        every entity is where it was expected. Raises WrongExpectedPosition.

        What the entities are at is asked first: an append that arrives while we search must not
        be taken for somebody else's.
        """
        elsewhere = await self._elsewhere(drafts)
        ids = [message.id for part in drafts for message in part.messages]
        start = await self._find(drafts[0], ids[0])
        if start is not None:
            return await self._last_of(start, ids)
        if elsewhere is not None:
            raise elsewhere
        return None

    async def _elsewhere(self, drafts: Sequence[Draft]) -> WrongExpectedPosition | None:
        for part in drafts:
            if part.expected is not UNCHECKED:
                last = await self._calls.last_on(self._stream, part.subject)
                actual = last.position if last is not None else 0
                if actual != part.expected:
                    return WrongExpectedPosition(part.entity, part.expected, actual)
        return None

    async def holds(self, position: Position, message_id: str) -> bool:
        """Whether the message with this id stands at this position."""
        stored = await self._calls.stored(self._stream, {"seq": position})
        return stored is not None and stored.message_id == message_id

    async def _find(self, part: Draft, id: UUID) -> Position | None:
        last = await self._calls.last_on(self._stream, part.subject)
        if last is None:
            return None
        if last.message_id == str(id):
            return last.position
        expected = 0 if part.expected is UNCHECKED else part.expected
        if last.position > expected:
            newer = await self._search(part.subject, id, expected, last.position)
            if newer is not None:
                return newer
        return await self._search(part.subject, id, 0, min(expected, last.position))

    async def _search(
        self, subject: str, id: UUID, after: Position, until: Position
    ) -> Position | None:
        """Any replica may answer, so ask until the answer reaches what the leader has."""
        wanted = str(id)
        while after < until:
            async for message in direct_get(
                self._calls, self._open_channel, self._stream, subject, after=after
            ):
                after = position_of(message)
                if (message.headers or {}).get("Nats-Msg-Id") == wanted:
                    return after
                if after >= until:
                    break
            else:
                if await self._ended(subject, after, until):
                    break
        return None

    async def _ended(self, subject: str, after: Position, until: Position) -> bool:
        """Whether the leader, too, has nothing on the subject in (after, until]."""
        body = {"seq": after + 1, "next_by_subj": subject}
        following = await self._calls.stored(self._stream, body)
        return following is None or following.position > until

    async def _last_of(self, start: Position, ids: Sequence[UUID]) -> Position:
        """An append's messages stand next to each other. A repeat may have decided on fewer or
        more events than the first time: then it is the first time that counts."""
        if len(ids) == 1 or await self.holds(start + len(ids) - 1, str(ids[-1])):
            return start + len(ids) - 1
        position = start
        for id in ids[1:]:
            if not await self.holds(position + 1, str(id)):
                break
            position += 1
        return position

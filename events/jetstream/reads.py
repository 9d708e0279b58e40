"""Reading an entity: batched direct gets, no consumer.

Any replica answers, so a read may lack what the leader just accepted. A reply cut short by a lost
connection or server is asked for again from where it stopped.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg

from events.errors import LogUnavailable
from events.event import Position
from events.jetstream.calls import Calls
from events.jetstream.channel import Channel, Interrupted
from events.jetstream.failures import ATTEMPT_SECONDS, Patience, Unanswered

_BATCH_MESSAGES: Final = 1_000
_END_OF_BATCH: Final = "204"
_NOT_FOUND: Final = "404"

OpenChannel = Callable[[], Channel]


async def direct_get(
    calls: Calls,
    open_channel: OpenChannel,
    stream: str,
    subject: str,
    *,
    after: Position,
    since: datetime | None = None,
) -> AsyncGenerator[Msg, None]:
    """The messages on a subject after a position, up to now, with `Nats-Sequence` among their
    headers; with `since`, from the first that was stored at or after it. Raises LogUnavailable.

    The server finds the time in its index. With both a position and a time, the first message after
    the position tells whether it is late enough; if not, that batch came in vain, and the time is
    asked for.
    """
    start: Mapping[str, Any] = {"seq": after + 1}
    untried = since
    if since is not None and after == 0:
        start, untried = {"start_time": since}, None
    patience = Patience()
    while True:
        try:
            async with open_channel() as channel:
                await _ask(calls, channel, stream, subject, start)
                async for message in _replies(channel):
                    if message is None:
                        break
                    patience = Patience()
                    if untried is not None and _stored_at(message) < untried:
                        start, untried = {"start_time": untried}, None
                        break
                    untried = None
                    position = position_of(message)
                    start = {"seq": max(position, after) + 1}
                    if position > after:  # clocks of two leaders may have told otherwise
                        yield message
                else:
                    return
        except (Unanswered, LogUnavailable) as error:
            calls.give_up_unless(patience.left, error)
            await patience.pause()


def position_of(message: Msg) -> Position:
    """Where a message of a direct get stands in its stream."""
    return int((message.headers or {})["Nats-Sequence"])


def _stored_at(message: Msg) -> datetime:
    """When the leader stored it, to the microsecond."""
    return datetime.fromisoformat((message.headers or {})["Nats-Time-Stamp"])


async def _ask(
    calls: Calls, channel: Channel, stream: str, subject: str, start: Mapping[str, Any]
) -> None:
    body = {**start, "next_by_subj": subject, "batch": _BATCH_MESSAGES}
    await calls.client.publish(
        f"$JS.API.DIRECT.GET.{stream}", msgspec.json.encode(body), reply=channel.subject
    )


async def _replies(channel: Channel) -> AsyncIterator[Msg | None]:
    """The messages of one batch; then None if there are more after it."""
    while True:
        try:
            messages = await channel.take(_BATCH_MESSAGES, timeout_s=ATTEMPT_SECONDS)
        except (TimeoutError, Interrupted) as error:
            raise Unanswered("direct get") from error
        for message in messages:
            headers = message.headers or {}
            match headers.get("Status"):
                case None:
                    yield message
                case s if s == _END_OF_BATCH:
                    if headers.get("Nats-Num-Pending", "0") != "0":
                        yield None
                    return
                case s if s == _NOT_FOUND:
                    return
                case status:
                    raise LogUnavailable(f"direct get: {status} {headers.get('Description', '')}")

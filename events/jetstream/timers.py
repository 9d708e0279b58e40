"""Timers as message schedules (ADR-51): the server keeps them, so they outlive every process.

A timer is the one message on `timer.<name>`; when it is due the server moves its body to
`wake.<name>` and removes it. `wake.<kind>.>` is a work queue with one durable consumer per kind.
Measured on 2.15.1: a wake-up comes 1 to 3 ms after its due time, one in the past after 0.25 s.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Final

import msgspec
from nats.aio.msg import Msg

from events.errors import LogUnavailable
from events.event import checked_identifier
from events.jetstream.calls import Calls, answer
from events.jetstream.channel import Channel, Interrupted
from events.jetstream.failures import Patience, Unanswered
from events.jetstream.reads import OpenChannel
from events.timers import Wake

_STREAM: Final = "TIMERS"
_PULL_SECONDS: Final = 30.0
_HEARTBEAT_SECONDS: Final = 1.0
_SILENCE_SECONDS: Final = 2.5
_WAKE_PREFIX: Final = "wake."
_NS: Final = 1_000_000_000


class JetStreamTimers:
    """Timers on the TIMERS stream. A wake-up that is not done comes again after `again_s`."""

    def __init__(self, calls: Calls, open_channel: OpenChannel, *, again_s: float) -> None:
        self._calls = calls
        self._open_channel = open_channel
        self._again_s = again_s

    async def set(self, timer: str, *, due: datetime, payload: bytes) -> None:
        """Raises LogUnavailable (set it again), ValueError for a `due` without time zone."""
        name = _checked_name(timer)
        if due.tzinfo is None:
            raise ValueError("a timer's due time needs a time zone")
        at = due.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        headers = {
            "Nats-Schedule": f"@at {at}",
            "Nats-Schedule-Target": f"{_WAKE_PREFIX}{name}",
        }

        async def attempt() -> None:
            answer(await self._calls.request(f"timer.{name}", payload, headers=headers))

        await self._calls.insist(attempt)

    async def cancel(self, timer: str) -> None:
        """Raises LogUnavailable."""
        subject = f"timer.{_checked_name(timer)}"
        await self._calls.insist_on(f"STREAM.PURGE.{_STREAM}", {"filter": subject})

    async def wakes(self, kind: str) -> AsyncIterator[Wake]:
        """Raises LogUnavailable when the connection was closed."""
        checked_identifier("timer kind", kind)
        consumer = f"wake-{kind}"
        patience = Patience()
        while True:
            try:
                async with self._open_channel() as channel:
                    await self._ensure_consumer(kind, consumer)
                    while True:
                        message = await self._next(channel, consumer)
                        patience = Patience()
                        if message is not None:
                            yield self._wake(message)
            except (TimeoutError, Interrupted, LogUnavailable, Unanswered) as error:
                if self._calls.client.is_closed:
                    raise LogUnavailable("the connection was closed") from error
            await patience.pause()

    async def _ensure_consumer(self, kind: str, name: str) -> None:
        config = {
            "name": name,
            "durable_name": name,
            "ack_policy": "explicit",
            "ack_wait": int(self._again_s * _NS),
            "filter_subject": f"{_WAKE_PREFIX}{kind}.>",
        }
        body = {"stream_name": _STREAM, "action": "", "config": config}
        await self._calls.insist_on(f"CONSUMER.CREATE.{_STREAM}.{name}", body)

    async def _next(self, channel: Channel, consumer: str) -> Msg | None:
        """One wake-up, or None when none came for a while. One at a time, so that none waits
        behind another in a process that is busy."""
        body = {
            "batch": 1,
            "expires": int(_PULL_SECONDS * _NS),
            "idle_heartbeat": int(_HEARTBEAT_SECONDS * _NS),
        }
        await self._calls.client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{_STREAM}.{consumer}",
            msgspec.json.encode(body),
            reply=channel.subject,
        )
        while True:
            [message] = await channel.take(1, timeout_s=_SILENCE_SECONDS)
            status = (message.headers or {}).get("Status")
            match status:
                case None:
                    return message
                case "100":
                    continue
                case "404" | "408":
                    return None
                case _:
                    raise Unanswered(f"pull of {consumer}: {status}")

    def _wake(self, message: Msg) -> Wake:
        ack = message.reply

        async def done() -> None:
            await self._calls.insist(lambda: self._calls.request(ack, b"+ACK"))

        return Wake(
            timer=message.subject.removeprefix(_WAKE_PREFIX), payload=message.data, done=done
        )


def _checked_name(timer: str) -> str:
    """Raises InvalidIdentifier for each part that may not stand in a subject, ValueError."""
    tokens = timer.split(".")
    if len(tokens) < 2:
        raise ValueError(f"timer {timer[:80]!r} is not <kind>.<tenant>.<id>")
    for token in tokens:
        checked_identifier("timer", token)
    return timer

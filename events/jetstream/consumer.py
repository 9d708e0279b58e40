"""An ordered consumer: a stream's messages in order, pulled, without gap or repeat.

The server numbers what it delivers to a consumer from 1. A number that does not follow, a missed
heartbeat, a reconnection or a word from the server end a consumer with ConsumerLost; its owner
makes a new one that starts after the last message it has. Pulling bounds what is on its way to us.
"""

from __future__ import annotations

from typing import Any, Final, Self
from uuid import uuid4

import msgspec
from nats.aio.msg import Msg

from events.errors import LogUnavailable
from events.event import Position
from events.jetstream.calls import Calls
from events.jetstream.channel import Channel, Interrupted
from events.jetstream.failures import Refused, Unanswered

_WINDOW_MESSAGES: Final = 2_000
"""Asked for and not yet received; half of it is asked for again when half has come."""
_HEARTBEAT_SECONDS: Final = 1.0
_SILENCE_SECONDS: Final = 2.5
_PULL_SECONDS: Final = 30.0
_INACTIVE_SECONDS: Final = 60.0
_NS: Final = 1_000_000_000
_ACK_PREFIX: Final = "$JS.ACK."
_HEARTBEAT: Final = "100"
_PULL_ENDED: Final = ("404", "408")
_COMPLETED: Final = "batch completed"


class ConsumerLost(Exception):
    """This consumer delivers nothing more; the next one starts after the last message."""


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """A message and its place in the stream."""

    position: Position
    message: Msg

    @property
    def pending(self) -> int:
        """Messages the consumer had still to deliver after this one."""
        return int(self.message.reply.rpartition(".")[2])


class OrderedConsumer:
    """One consumer's life. Use as an async context manager."""

    def __init__(self, calls: Calls, channel: Channel, stream: str) -> None:
        self._calls = calls
        self._channel = channel
        self._stream = stream
        self._name = uuid4().hex
        self._next = 1
        self._asked = 0
        self._lost: str | None = None
        self.pending = 0
        """Messages there were when the consumer was made."""

    async def create(self, options: dict[str, Any]) -> Self:
        """Raises ConsumerLost when nobody can make one at present, Refused."""
        config = {
            "name": self._name,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(_INACTIVE_SECONDS * _NS),
            **options,
        }
        body = {"stream_name": self._stream, "action": "create", "config": config}
        try:
            made = await self._calls.ask(f"CONSUMER.CREATE.{self._stream}.{self._name}", body)
        except (LogUnavailable, Unanswered) as error:
            raise ConsumerLost(str(error)) from error
        except Refused as error:
            if error.passing:
                raise ConsumerLost(str(error)) from error
            raise
        self.pending = made["num_pending"]
        return self

    async def take(self, at_most: int) -> list[Delivery]:
        """At least one message, in order. Raises ConsumerLost."""
        taken: list[Delivery] = []
        while not taken:
            if self._lost is not None:
                raise ConsumerLost(self._lost)
            await self._ask()
            try:
                messages = await self._channel.take(at_most, timeout_s=_SILENCE_SECONDS)
            except (TimeoutError, Interrupted) as error:
                raise ConsumerLost("silence") from error
            self._sort(messages, taken)
        return taken

    def _sort(self, messages: list[Msg], taken: list[Delivery]) -> None:
        for message in messages:
            reply = message.reply
            if reply.startswith(_ACK_PREFIX):
                tokens = reply.split(".")
                if int(tokens[6]) != self._next:
                    self._lost = f"delivery {tokens[6]} where {self._next} comes next"
                    return
                self._next += 1
                self._asked -= 1
                taken.append(Delivery(int(tokens[5]), message))
            else:
                self._heed(message.headers or {})
                if self._lost is not None:
                    return

    def _heed(self, headers: dict[str, str]) -> None:
        status = headers.get("Status")
        description = headers.get("Description", "")
        if status == _HEARTBEAT:
            if headers.get("Nats-Last-Consumer") != str(self._next - 1):
                self._lost = "a delivery was lost"
        elif status in _PULL_ENDED or description.lower() == _COMPLETED:
            self._asked -= int(headers.get("Nats-Pending-Messages", "0"))
        else:
            self._lost = f"{status} {description}"

    async def _ask(self) -> None:
        if self._asked > _WINDOW_MESSAGES // 2:
            return
        count = _WINDOW_MESSAGES - self._asked
        self._asked += count
        body = {
            "batch": count,
            "expires": int(_PULL_SECONDS * _NS),
            "idle_heartbeat": int(_HEARTBEAT_SECONDS * _NS),
        }
        await self._calls.client.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}",
            msgspec.json.encode(body),
            reply=self._channel.subject,
        )

    async def delete(self) -> None:
        """Tell the server that it is no longer needed; it would find out by itself."""
        if self._calls.client.is_connected:
            await self._calls.client.publish(
                f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}", b""
            )

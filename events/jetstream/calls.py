"""Requests to the server, with their failures told apart.

Three things can go wrong, and what to do next depends on which: `LogUnavailable` (nobody took the
request), `Unanswered` (somebody may have), `Refused` (the server said no, and why).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

import msgspec
from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from events.errors import LogUnavailable
from events.event import Position
from events.jetstream.answers import answered
from events.jetstream.failures import ATTEMPT_SECONDS, NOT_FOUND, Patience, Refused, Unanswered

Json = dict[str, Any]
Result = TypeVar("Result")

_NO_MESSAGE: Final = 10037
_decode = msgspec.json.decode
_encode = msgspec.json.encode


class Stored(msgspec.Struct, frozen=True):
    """A message as the leader holds it."""

    position: Position
    headers: str
    data: bytes

    @property
    def message_id(self) -> str | None:
        """Its `Nats-Msg-Id`."""
        return self.header("Nats-Msg-Id")

    def header(self, name: str) -> str | None:
        for line in self.headers.split("\r\n"):
            key, colon, value = line.partition(":")
            if colon and key == name:
                return value.strip()
        return None


class Calls:
    """The JetStream API on one connection."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def request(
        self,
        subject: str,
        body: bytes,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = ATTEMPT_SECONDS,
    ) -> Msg:
        """One request. Raises LogUnavailable, Unanswered.

        Nothing is sent while there is no connection: nats-py would keep it and send it later.
        """
        if not self.client.is_connected:
            raise LogUnavailable("not connected")
        try:
            return await answered(
                self.client.request(
                    subject, body, timeout=timeout_s, headers=dict(headers) if headers else None
                )
            )
        except errors.NoRespondersError as error:
            raise LogUnavailable(f"nobody answers on {subject}") from error
        except errors.TimeoutError as error:
            raise Unanswered(subject) from error
        except (
            errors.ConnectionClosedError,
            errors.ConnectionDrainingError,
            errors.OutboundBufferLimitError,
        ) as error:
            raise LogUnavailable(f"not connected: {error}") from error

    async def ask(self, call: str, body: object = None) -> Json:
        """One call of the JetStream API. Raises LogUnavailable, Unanswered, Refused."""
        payload = b"" if body is None else _encode(body)
        return answer(await self.request(f"$JS.API.{call}", payload))

    async def insist(self, attempt: Callable[[], Awaitable[Result]]) -> Result:
        """Repeat a call that may be repeated, until it is answered.

        Raises LogUnavailable, Refused.
        """
        patience = Patience()
        while True:
            try:
                return await attempt()
            except (LogUnavailable, Unanswered) as error:
                self.give_up_unless(patience.left, error)
            except Refused as error:
                if not error.passing:
                    raise
                self.give_up_unless(patience.left, error)
            await patience.pause()

    def give_up_unless(self, hopeful: bool, error: Exception) -> None:
        """Raises LogUnavailable when there is no hope, or the connection was closed."""
        if not hopeful or self.client.is_closed:
            raise LogUnavailable(str(error)) from error

    async def insist_on(self, call: str, body: object = None) -> Json:
        """`ask`, repeated. Raises LogUnavailable, Refused."""
        return await self.insist(lambda: self.ask(call, body))

    async def stored(self, stream: str, body: Json) -> Stored | None:
        """One message, asked of the stream's leader. Raises LogUnavailable, Refused."""
        try:
            found = await self.insist_on(f"STREAM.MSG.GET.{stream}", body)
        except Refused as error:
            if error.status == NOT_FOUND and error.code == _NO_MESSAGE:
                return None
            raise
        return msgspec.convert(found["message"], _Message).stored()

    async def last_on(self, stream: str, subject: str) -> Stored | None:
        """The last message on a subject, asked of the leader. Raises LogUnavailable, Refused."""
        return await self.stored(stream, {"last_by_subj": subject})


class _Message(msgspec.Struct):
    seq: Position
    hdrs: bytes = b""
    data: bytes = b""

    def stored(self) -> Stored:
        return Stored(self.seq, self.hdrs.decode(), self.data)


def answer(message: Msg) -> Json:
    """The JSON of a reply. Raises Refused when it says so."""
    reply: Json = _decode(message.data)
    error = reply.get("error")
    if error is not None:
        raise Refused(error["code"], error.get("err_code", 0), error.get("description", ""))
    return reply

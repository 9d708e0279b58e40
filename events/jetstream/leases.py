"""Leases in a key-value bucket whose entries run out.

A lease is the last message on its key; its stream sequence is the token. Every change expects the
token before it, so of two takers one wins. The server removes an entry that is not renewed and
leaves a marker that says so (measured on 2.15.1: 40 to 70 ms after the end of its time).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import msgspec

from events.errors import LeaseLost, LogUnavailable
from events.event import checked_identifier
from events.jetstream.calls import Calls, answer
from events.jetstream.channel import Interrupted
from events.jetstream.consumer import ConsumerLost, Delivery, OrderedConsumer
from events.jetstream.failures import (
    ATTEMPT_SECONDS,
    LOST_RACE,
    NOT_FOUND,
    Patience,
    Refused,
    Unanswered,
)
from events.jetstream.reads import OpenChannel
from events.leases import Lease, LeaseChange

_STREAM: Final = "KV_LEASES"
_PREFIX: Final = "$KV.LEASES."
_OPERATION: Final = "KV-Operation"
_MARKER: Final = "Nats-Marker-Reason"
_EXPECTED: Final = "Nats-Expected-Last-Subject-Sequence"
_WATCH_MESSAGES: Final = 500
_SNAPSHOT_SECONDS: Final = 2.0


class _Entry(msgspec.Struct, frozen=True):
    holder: str
    value: bytes


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Entry).decode


class JetStreamLeases:
    """Named leases that run out `ttl_s` after they were last renewed."""

    def __init__(self, calls: Calls, open_channel: OpenChannel, *, ttl_s: float) -> None:
        self._calls = calls
        self._open_channel = open_channel
        self._ttl_s = ttl_s

    @property
    def ttl_s(self) -> float:
        return self._ttl_s

    async def acquire(self, name: str, *, holder: str, value: bytes = b"") -> Lease | None:
        """Raises LogUnavailable."""
        subject = _subject(name)
        patience = Patience(seconds=self._ttl_s)
        while True:
            current, token = await self._current(name)
            if current is not None and current.holder != holder:
                return None
            try:
                return await self._put(subject, name, token, _Entry(holder, value))
            except Refused as error:
                if error.code not in LOST_RACE:
                    raise LogUnavailable(str(error)) from error
                self._calls.give_up_unless(patience.left, error)
            except Unanswered as error:
                self._calls.give_up_unless(patience.left, error)
            await patience.pause()

    async def renew(self, lease: Lease, *, value: bytes | None = None) -> Lease:
        """Raises LeaseLost, LogUnavailable (it may or may not have been renewed)."""
        subject = _subject(lease.name)
        entry = _Entry(lease.holder, lease.value if value is None else value)
        patience = Patience(seconds=self._ttl_s)
        token = lease.token
        while True:
            try:
                return await self._put(subject, lease.name, token, entry)
            except Refused as error:
                if error.code not in LOST_RACE:
                    raise LogUnavailable(str(error)) from error
                raise LeaseLost(lease.name, lease.holder) from error
            except Unanswered as error:
                self._calls.give_up_unless(patience.left, error)
                token = await self._token_still_held(lease)
            except LogUnavailable as error:
                self._calls.give_up_unless(patience.left, error)
            await patience.pause()

    async def release(self, lease: Lease) -> None:
        """Raises LogUnavailable."""
        headers = {_OPERATION: "DEL", _EXPECTED: str(lease.token)}
        subject = _subject(lease.name)

        async def attempt() -> None:
            answer(await self._calls.request(subject, b"", headers=headers))

        try:
            await self._calls.insist(attempt)
        except Refused as error:
            if error.code not in LOST_RACE:
                raise LogUnavailable(str(error)) from error

    async def held(self, prefix: str) -> Mapping[str, Lease]:
        """Raises LogUnavailable."""
        patience = Patience()
        while True:
            try:
                async with self._open_channel() as channel:
                    consumer = OrderedConsumer(self._calls, channel, _STREAM)
                    try:
                        return await _snapshot(consumer, prefix)
                    finally:
                        await consumer.delete()
            except (ConsumerLost, Interrupted) as error:
                self._calls.give_up_unless(patience.left, error)
            await patience.pause()

    async def watch(self, prefix: str) -> AsyncIterator[LeaseChange]:
        """After a lost connection it reports what changed meanwhile. Raises LogUnavailable when
        the connection was closed."""
        known: dict[str, Lease] = {}
        patience = Patience()
        while True:
            try:
                async with self._open_channel() as channel:
                    consumer = OrderedConsumer(self._calls, channel, _STREAM)
                    try:
                        live = await _snapshot(consumer, prefix)
                        for change in _changes(known, live):
                            yield change
                        known = dict(live)
                        while True:
                            patience = Patience()
                            for delivery in await consumer.take(_WATCH_MESSAGES):
                                change = _change(delivery)
                                if _note(known, change):
                                    yield change
                    finally:
                        await consumer.delete()
            except ConsumerLost as error:
                if self._calls.client.is_closed:
                    raise LogUnavailable("the connection was closed") from error
            await patience.pause()

    async def _current(self, name: str) -> tuple[_Entry | None, int]:
        """Who has it, and the token that a change has to expect."""
        stored = await self._calls.last_on(_STREAM, _subject(name))
        if stored is None:
            return None, 0
        gone = stored.header(_OPERATION) is not None or stored.header(_MARKER) is not None
        return (None if gone else _decode(stored.data)), stored.position

    async def _put(self, subject: str, name: str, token: int, entry: _Entry) -> Lease:
        reply = await self._calls.request(
            subject,
            _encode(entry),
            headers={_EXPECTED: str(token)},
            timeout_s=min(ATTEMPT_SECONDS, self._ttl_s),
        )
        changed = int(answer(reply)["seq"])
        return Lease(name=name, holder=entry.holder, token=changed, value=entry.value)

    async def _token_still_held(self, lease: Lease) -> int:
        """After a lost answer: a token not ours means another change came after, so it is lost."""
        current, token = await self._current(lease.name)
        if current is None or current.holder != lease.holder:
            raise LeaseLost(lease.name, lease.holder)
        return token


async def _snapshot(consumer: OrderedConsumer, prefix: str) -> dict[str, Lease]:
    """The leases there are when the consumer is made; it then goes on with every change."""
    subject = _subject(prefix)
    try:
        await consumer.create(
            {
                "deliver_policy": "last_per_subject",
                "filter_subjects": [subject, f"{subject}.>"],
            }
        )
    except Refused as error:
        status = "no lease bucket" if error.status == NOT_FOUND else str(error)
        raise LogUnavailable(status) from error
    live: dict[str, Lease] = {}
    left = consumer.pending
    try:
        async with asyncio.timeout(_SNAPSHOT_SECONDS):
            while left > 0:
                for delivery in await consumer.take(left):
                    _note(live, _change(delivery))
                    left = min(left - 1, delivery.pending)
    except TimeoutError as error:
        raise ConsumerLost("an entry ran out while it was on its way") from error
    return live


def _change(delivery: Delivery) -> LeaseChange:
    message = delivery.message
    name = message.subject.removeprefix(_PREFIX)
    headers: dict[str, Any] = message.headers or {}
    if _OPERATION in headers or _MARKER in headers:
        return LeaseChange(name=name, lease=None)
    entry = _decode(message.data)
    lease = Lease(name=name, holder=entry.holder, token=delivery.position, value=entry.value)
    return LeaseChange(name=name, lease=lease)


def _note(known: dict[str, Lease], change: LeaseChange) -> bool:
    """Whether the change says anything new."""
    if change.lease is not None:
        known[change.name] = change.lease
        return True
    return known.pop(change.name, None) is not None


def _changes(known: Mapping[str, Lease], live: Mapping[str, Lease]) -> list[LeaseChange]:
    gone = [LeaseChange(name=name, lease=None) for name in known if name not in live]
    changed = [
        LeaseChange(name=name, lease=lease)
        for name, lease in live.items()
        if known.get(name) != lease
    ]
    return gone + changed


def _subject(name: str) -> str:
    """Raises InvalidIdentifier: a lease's name is dotted identifiers."""
    for token in name.split("."):
        checked_identifier("lease", token)
    return _PREFIX + name

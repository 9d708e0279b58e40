"""The ports beside the log, in memory: they do at once what a test asks of them.

`test_fakes.py` holds them to what the real ones do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from events.bus import Handler, StreamHandler
from events.errors import (
    LeaseLost,
    LogUnavailable,
    NoResponders,
    RemoteFailure,
    RequestTimeout,
    ServerDied,
)
from events.leases import Lease, LeaseChange
from events.timers import Wake

LEASE_SECONDS = 0.03


class FakeService:
    def __init__(self, among: list[FakeService], subject: str, handler: Any) -> None:
        self._among = among
        self.subject = subject
        self.handler = handler

    async def stop(self) -> None:
        if self in self._among:
            self._among.remove(self)


class FakeBus:
    """Requests reach the service that was asked least recently."""

    def __init__(self) -> None:
        self.services: list[FakeService] = []
        self.streams: list[FakeService] = []
        self.listeners: list[FakeService] = []
        self.away = False
        self.requests: list[str] = []
        self.while_serving: Callable[[str], Awaitable[None]] | None = None
        """Awaited when a subject is served and `serve` has not returned yet."""

    @property
    def subjects(self) -> set[str]:
        return {service.subject for service in self.services}

    async def serve(self, subject: str, handler: Handler, *, queue: str) -> FakeService:
        if self.away:
            raise LogUnavailable("not connected")
        service = FakeService(self.services, subject, handler)
        self.services.append(service)
        if self.while_serving is not None:
            await self.while_serving(subject)
        return service

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        if self.away:
            raise LogUnavailable("not connected")
        self.requests.append(subject)
        service = next((each for each in self.services if each.subject == subject), None)
        if service is None:
            raise NoResponders(subject)
        self.services.remove(service)
        self.services.append(service)
        try:
            async with asyncio.timeout(timeout_s):
                return await service.handler(subject, payload)
        except TimeoutError:
            raise RequestTimeout(subject, timeout_s) from None
        except (RemoteFailure, ServerDied):
            raise
        except Exception as error:
            raise RemoteFailure(subject, "internal", type(error).__name__) from error

    async def serve_stream(
        self, subject: str, handler: StreamHandler, *, queue: str
    ) -> FakeService:
        if self.away:
            raise LogUnavailable("not connected")
        service = FakeService(self.streams, subject, handler)
        self.streams.append(service)
        return service

    async def stream(
        self, subject: str, payload: bytes, *, timeout_s: float
    ) -> AsyncGenerator[bytes, None]:
        if self.away:
            raise LogUnavailable("not connected")
        service = next((each for each in self.streams if each.subject == subject), None)
        if service is None:
            raise NoResponders(subject)
        replies = service.handler(subject, payload)
        try:
            async for reply in replies:
                yield reply
        finally:
            await replies.aclose()

    async def listen(self, subject: str, handler: Callable[[str, bytes], None]) -> FakeService:
        listener = FakeService(self.listeners, subject, handler)
        self.listeners.append(listener)
        return listener

    async def publish(self, subject: str, payload: bytes) -> None:
        if self.away:
            raise LogUnavailable("not connected")
        for listener in [each for each in self.listeners if each.subject == subject]:
            listener.handler(subject, payload)


class FakeLeases:
    """Leases that run out when a test says so."""

    def __init__(self, *, ttl_s: float = LEASE_SECONDS) -> None:
        self._ttl_s = ttl_s
        self._token = 0
        self._watching: list[tuple[str, asyncio.Queue[LeaseChange]]] = []
        self.live: dict[str, Lease] = {}
        self.away = False
        self.looks = 0
        """How often somebody saw who holds what."""

    @property
    def ttl_s(self) -> float:
        return self._ttl_s

    async def acquire(self, name: str, *, holder: str, value: bytes = b"") -> Lease | None:
        await self._answer()
        current = self.live.get(name)
        if current is not None and current.holder != holder:
            return None
        return self._put(name, holder, value)

    async def renew(self, lease: Lease, *, value: bytes | None = None) -> Lease:
        await self._answer()
        if self.live.get(lease.name) != lease:
            raise LeaseLost(lease.name, lease.holder)
        return self._put(lease.name, lease.holder, lease.value if value is None else value)

    async def release(self, lease: Lease) -> None:
        await self._answer()
        if self.live.get(lease.name) == lease:
            self.expire(lease.name)

    async def held(self, prefix: str) -> Mapping[str, Lease]:
        try:
            await self._answer()
        finally:
            self.looks += 1
        return {name: lease for name, lease in self.live.items() if _below(name, prefix)}

    async def watch(self, prefix: str) -> AsyncIterator[LeaseChange]:
        changes: asyncio.Queue[LeaseChange] = asyncio.Queue()
        for name, lease in (await self.held(prefix)).items():
            changes.put_nowait(LeaseChange(name=name, lease=lease))
        self._watching.append((prefix, changes))
        while True:
            yield await changes.get()

    def expire(self, name: str) -> None:
        """The lease runs out."""
        del self.live[name]
        self._tell(LeaseChange(name=name, lease=None))

    def take(self, name: str, *, holder: str) -> None:
        """Another holder has it from now on."""
        self._put(name, holder, b"")

    async def _answer(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise LogUnavailable("not connected")

    def _put(self, name: str, holder: str, value: bytes) -> Lease:
        self._token += 1
        lease = self.live[name] = Lease(name=name, holder=holder, token=self._token, value=value)
        self._tell(LeaseChange(name=name, lease=lease))
        return lease

    def _tell(self, change: LeaseChange) -> None:
        for prefix, changes in self._watching:
            if _below(change.name, prefix):
                changes.put_nowait(change)


class FakeTimers:
    """Timers that are due when a test says so."""

    def __init__(self) -> None:
        self.pending: dict[str, tuple[datetime, bytes]] = {}
        self._due: asyncio.Queue[Wake] = asyncio.Queue()
        self.handled: list[str] = []
        self.away = False

    async def set(self, timer: str, *, due: datetime, payload: bytes) -> None:
        if self.away:
            raise LogUnavailable("not connected")
        self.pending[timer] = (due, payload)

    async def cancel(self, timer: str) -> None:
        if self.away:
            raise LogUnavailable("not connected")
        self.pending.pop(timer, None)

    async def wakes(self, kind: str) -> AsyncIterator[Wake]:
        while True:
            yield await self._due.get()

    def fire(self, timer: str) -> None:
        """It is due."""
        _, payload = self.pending.pop(timer)
        self.wake(timer, payload)

    def wake(self, timer: str, payload: bytes) -> None:
        """A wake-up, perhaps a repeated one."""

        async def done() -> None:
            self.handled.append(timer)

        self._due.put_nowait(Wake(timer=timer, payload=payload, done=done))


class FakeClock:
    """A clock that stands still until it is told to go on."""

    def __init__(self, at: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)) -> None:
        self.at = at

    def __call__(self) -> datetime:
        return self.at


def _below(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(f"{prefix}.")

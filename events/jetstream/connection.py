"""One connection to NATS, and everything that is built on it.

    async with JetStream.connect("nats://127.0.0.1:4222", replicas=1) as nats:
        await nats.events.append(...)

Streams are created from their declarations or compared with them before anything else happens. The
connection comes back by itself for as long as it is not closed.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

import structlog
from nats.aio.client import Client

from events.errors import LogUnavailable
from events.jetstream import streams
from events.jetstream.bus import JetStreamBus
from events.jetstream.calls import Calls
from events.jetstream.channel import Channel
from events.jetstream.client import LeanClient
from events.jetstream.leases import JetStreamLeases
from events.jetstream.log import JetStreamLog
from events.jetstream.timers import JetStreamTimers

FIRST_CONNECTION_SECONDS: Final = 15.0
_LEASE_SECONDS: Final = 3.0
_WAKE_AGAIN_SECONDS: Final = 30.0
_log = structlog.get_logger(__name__)


class JetStream:
    """Logs, timers, leases and bus over one connection. Made by `connect`."""

    def __init__(self, client: Client, *, lease_ttl_s: float, wake_again_s: float) -> None:
        self._client = client
        self._channels: set[Channel] = set()
        self.calls = Calls(client)
        self.events = JetStreamLog(self.calls, self.open_channel, streams.EVENTS)
        """The log."""
        self.traffic = JetStreamLog(self.calls, self.open_channel, streams.TRAFFIC)
        """Traffic windows: a log of its own, of bounded age."""
        self.timers = JetStreamTimers(self.calls, self.open_channel, again_s=wake_again_s)
        self.leases = JetStreamLeases(self.calls, self.open_channel, ttl_s=lease_ttl_s)
        self.bus = JetStreamBus(client, self.open_channel)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        replicas: int | None = None,
        lease_ttl_s: float = _LEASE_SECONDS,
        wake_again_s: float = _WAKE_AGAIN_SECONDS,
        tls: ssl.SSLContext | None = None,
        name: str = "switchback",
    ) -> AsyncIterator[JetStream]:
        """`url` may name several servers, separated by commas. `replicas` of each stream: None
        takes those there are as they are and makes new ones with one replica.

        Raises LogUnavailable when no server answers, StreamMismatch.
        """
        client = LeanClient()
        jetstream = cls(client, lease_ttl_s=lease_ttl_s, wake_again_s=wake_again_s)
        await jetstream._connect(url, tls=tls, name=name)
        try:
            await jetstream._ensure_streams(replicas)
            yield jetstream
        finally:
            await jetstream._close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection at this moment."""
        return bool(self._client.is_connected)

    def open_channel(self, suffix: str = "") -> Channel:
        """A channel on a new inbox of this connection."""
        return Channel(self._client, self._channels, self._client.new_inbox() + suffix)

    async def _connect(self, url: str, *, tls: ssl.SSLContext | None, name: str) -> None:
        try:
            async with asyncio.timeout(FIRST_CONNECTION_SECONDS):
                await self._client.connect(
                    server_urls(url),
                    name=name,
                    tls=tls,
                    connect_timeout=1,
                    reconnect_time_wait=0.1,  # type: ignore[arg-type]
                    max_reconnect_attempts=-1,
                    ping_interval=1,
                    max_outstanding_pings=2,
                    error_cb=_report,
                    reconnected_cb=self._interrupt,
                )
        except TimeoutError:
            reason = self._client.last_error
            raise LogUnavailable(f"no NATS server answers: {reason}") from reason

    async def _interrupt(self) -> None:
        for channel in tuple(self._channels):
            channel.interrupt()

    async def _ensure_streams(self, replicas: int | None) -> None:
        for declaration in (streams.EVENTS, streams.TRAFFIC, streams.TIMERS):
            await streams.ensure(self.calls, declaration, replicas=replicas)
        bucket = streams.leases(ttl_s=self.leases.ttl_s)
        await streams.ensure(self.calls, bucket, replicas=replicas)

    async def _close(self) -> None:
        try:
            await self.events.close()
            await self.traffic.close()
            await self.bus.close()
        finally:
            await _close(self._client)
            await self._interrupt()


async def _close(client: Client) -> None:
    """Without a server, nats-py (2.16.0) fails on what it had still to send and leaves its tasks
    behind; with that thrown away, a second attempt ends well. uvloop says RuntimeError of a
    transport that is closed."""
    try:
        await client.close()
    except (OSError, RuntimeError):
        client._status = Client.DISCONNECTED
        client._pending, client._pending_data_size = [], 0
        await client.close()


@asynccontextmanager
async def connect_log(url: str) -> AsyncIterator[JetStreamLog]:
    """The log alone."""
    async with JetStream.connect(url) as jetstream:
        yield jetstream.events


def server_urls(url: str) -> list[str]:
    """`nats://user:secret@a:1,b:2` as one URL per server; what a later one lacks (scheme,
    credentials) it takes from the first."""
    first, *others = url.split(",")
    parts = urlsplit(first)
    credentials, at, _ = parts.netloc.rpartition("@")
    urls = [first]
    for other in others:
        if "://" in other:
            urls.append(other)
        else:
            urls.append(f"{parts.scheme}://{'' if '@' in other else credentials + at}{other}")
    return urls


async def _report(error: Exception) -> None:
    """nats-py reports here what no caller waits for."""
    _log.debug("nats", error=repr(error))

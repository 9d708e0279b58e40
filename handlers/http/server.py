"""The listening socket: Granian, embedded in the running event loop.

Guarantees: when `start` returns the port accepts connections; `stop` takes no new ones, ends event
streams, and returns when requests under way are answered, or after `drain_seconds`. Granian holds
back a sender whose client does not read (measured: about 70 chunks of 64 KiB), so slow readers cost
bounded memory. A thread of Granian's that outlives the interpreter aborts the process (its issue
693, seen here too): `stop` waits until they are gone.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from typing import Final

import psutil
import structlog
from granian.constants import HTTPModes, Interfaces
from granian.server.embed import Server
from litestar.types import ASGIApp

from handlers.http.streams import Streams

_log = structlog.get_logger(__name__)

LOOPBACK: Final = "127.0.0.1"
BACKLOG_CONNECTIONS: Final = 1024
READY_SECONDS: Final = 10.0
READY_POLL_SECONDS: Final = 0.005
DRAIN_SECONDS: Final = 10.0
THREADS_END_SECONDS: Final = 2.0


class ServerFailed(Exception):
    """The address cannot be listened on, or the server ended by itself."""


class HttpServer:
    """One application on one address."""

    def __init__(
        self, app: ASGIApp, *, streams: Streams, host: str = LOOPBACK, port: int = 0
    ) -> None:
        self._app = app
        self._streams = streams
        self.host = host
        self.port = port
        """0 takes a free one; known after `start`."""
        self._threads: frozenset[int] = frozenset()
        self._server: Server | None = None
        self._serving: asyncio.Task[None] | None = None

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def threads_alive(self) -> frozenset[int]:
        """Native ids of the server's own threads that still run."""
        return self._threads & _native_threads()

    async def start(self) -> None:
        """Listen. Raises ServerFailed."""
        self.port = _claim(self.host, self.port)
        before = _native_threads()
        logging.getLogger("_granian").setLevel(logging.ERROR)
        self._server = Server(
            self._app,
            address=self.host,
            port=self.port,
            interface=Interfaces.ASGINL,
            http=HTTPModes.http1,
            backlog=BACKLOG_CONNECTIONS,
            log_enabled=False,
        )
        self._serving = asyncio.create_task(self._server.serve(), name="http server")
        await self._accepting(self._serving)
        self._threads = _native_threads() - before
        _log.info("http listens", url=self.url)

    async def stop(self, *, drain_seconds: float = DRAIN_SECONDS) -> None:
        """Stop, and let requests under way finish. May be called without `start`."""
        if self._server is None or self._serving is None:
            return
        self._streams.close()
        self._server.stop()  # type: ignore[no-untyped-call]
        try:
            async with asyncio.timeout(drain_seconds):
                await asyncio.shield(self._serving)
        except TimeoutError:
            _log.warning("requests were cut off", url=self.url, after_seconds=drain_seconds)
            self._serving.cancel()
            await asyncio.gather(self._serving, return_exceptions=True)
        self._server = self._serving = None
        await self._threads_end()

    async def _threads_end(self) -> None:
        try:
            async with asyncio.timeout(THREADS_END_SECONDS):
                while self.threads_alive:  # noqa: ASYNC110 - the kernel tells nobody
                    await asyncio.sleep(READY_POLL_SECONDS)
        except TimeoutError:
            _log.warning("the server's threads still run", url=self.url)

    async def _accepting(self, serving: asyncio.Task[None]) -> None:
        try:
            async with asyncio.timeout(READY_SECONDS):
                while not serving.done():
                    if await _connects(self.host, self.port):
                        return
                    await asyncio.sleep(READY_POLL_SECONDS)
        except TimeoutError:
            serving.cancel()
            raise ServerFailed(f"nothing listens on {self.url}") from None
        reason = serving.exception() if not serving.cancelled() else None
        raise ServerFailed(f"the server on {self.url} ended: {reason}") from reason


def _native_threads() -> frozenset[int]:
    """The threads of this process that Python did not start."""
    ours = {thread.native_id for thread in threading.enumerate()}
    return frozenset(thread.id for thread in psutil.Process().threads() if thread.id not in ours)


def _claim(host: str, port: int) -> int:
    """The port to listen on, free a moment ago. Raises ServerFailed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ServerFailed(f"cannot listen on {host}:{port}: {error.strerror}") from error
        return int(probe.getsockname()[1])


async def _connects(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True

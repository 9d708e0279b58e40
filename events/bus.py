"""The bus port: request and reply between processes, nothing durable.

A subject is served by any number of processes in a queue group; each request reaches one of them.
Losing a reply is normal: whoever asks decides whether asking again is safe.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeAlias

Handler: TypeAlias = Callable[[str, bytes], Awaitable[bytes]]
"""(subject, payload) -> reply. Raise RemoteFailure to answer with an error code and detail."""
StreamHandler: TypeAlias = Callable[[str, bytes], AsyncIterator[bytes]]
"""As Handler, with any number of replies."""


class Service(Protocol):
    """A subject being served."""

    async def stop(self) -> None:
        """Take no further request; return when those under way are answered."""


class Bus(Protocol):
    """Request and reply."""

    async def request(self, subject: str, payload: bytes, *, timeout_s: float) -> bytes:
        """One reply. Raises NoResponders at once, RequestTimeout, ServerDied some seconds after
        whoever has the request, RemoteFailure, LogUnavailable."""
        ...

    def stream(
        self, subject: str, payload: bytes, *, timeout_s: float
    ) -> AsyncGenerator[bytes, None]:
        """All replies in order; `timeout_s` bounds the wait for each. Raises as `request`, and
        ReaderTooSlow.

        Closing the iterator tells the server, whose handler is then cancelled.
        """
        ...

    async def serve(self, subject: str, handler: Handler, *, queue: str) -> Service:
        """Answer requests; `subject` may hold wildcards. Requests are handled concurrently."""
        ...

    async def serve_stream(self, subject: str, handler: StreamHandler, *, queue: str) -> Service:
        """As `serve`, for handlers with many replies."""
        ...

    async def publish(self, subject: str, payload: bytes) -> None:
        """Tell whoever listens, at most once."""
        ...

    async def listen(self, subject: str, handler: Callable[[str, bytes], None]) -> Service:
        """Hear everything published on a subject; every listener hears it."""
        ...

"""What the tour's client saw: every request, counted as it is answered."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec

from switchback.demo.traffic import Request


class Watch:
    """The requests of one client process."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._grown = asyncio.Event()

    @property
    def failed(self) -> list[Request]:
        return [request for request in self.requests if request.failure]

    def of(self, version: str) -> list[Request]:
        """Answered by that version."""
        return [r for r in self.requests if r.version == version and not r.failure]

    def accuracy(self, version: str) -> float:
        """Share of right answers; NaN without any."""
        answered = self.of(version)
        correct = sum(request.correct for request in answered)
        return correct / len(answered) if answered else float("nan")

    def between(self, since: float, until: float) -> list[Request]:
        """Sent in that time, wall-clock seconds since the epoch, the end exclusive."""
        return [request for request in self.requests if since <= request.sent < until]

    def routed_since(self, position: int) -> float | None:
        """When the first answer by a policy of this position or a later one was asked for."""
        return min((r.sent for r in self.requests if r.position >= position), default=None)

    async def until(self, enough: Callable[[Watch], bool]) -> None:
        """Return as soon as enough was seen. Bound it with asyncio.timeout."""
        while not enough(self):
            self._grown.clear()
            await self._grown.wait()

    async def more(self, requests: int) -> None:
        """Return when so many further ones have ended. Bound it likewise."""
        goal = len(self.requests) + requests
        await self.until(lambda watch: len(watch.requests) >= goal)

    async def read(self, lines: asyncio.StreamReader) -> None:
        """Take the client's lines until it ends."""
        async for line in lines:
            self.requests.append(msgspec.json.decode(line, type=Request))
            self._grown.set()


@asynccontextmanager
async def watched_traffic(
    url: str, key: str, endpoint: str, *, requests_per_s: int
) -> AsyncIterator[Watch]:
    """A client process that sends for as long as the block lasts; then all is answered."""
    client = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "switchback.demo.traffic", url, key, endpoint, str(requests_per_s)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    watch = Watch()
    reading = asyncio.create_task(watch.read(client.stdout))
    try:
        yield watch
        client.stdin.close()
        await reading
        await client.wait()
    finally:
        reading.cancel()
        if client.returncode is None:
            client.kill()
            await client.wait()

"""The bare ends of an inference: a runtime called directly, and HTTP that does nothing."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from engine.runtimes import RuntimeSettings, create_runtime
from events.catalogue.models import VersionRegistered
from switchback.bench.http import Target

_ANSWER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
_HOST: Final = "127.0.0.1"


async def call_runtime(inputs: Any, calls: int) -> list[float]:
    """Seconds of each call of an echo version, without anything around it."""
    registered = VersionRegistered(version="1.0.0", runtime="echo", config={"answer": 1})
    settings = RuntimeSettings(artifact_roots=(), python_enabled=False, python_memory_bytes_max=1)
    runtime = create_runtime(registered, settings)
    await runtime.load()
    taken_s = []
    for _ in range(calls):
        began = time.perf_counter()
        await runtime.infer(inputs, {})
        taken_s.append(time.perf_counter() - began)
    await runtime.close()
    return taken_s


class _Nothing(asyncio.Protocol):
    """Answers each piece of data, which is one request of ours, with the same bytes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(_ANSWER)


@asynccontextmanager
async def nothing_served() -> AsyncIterator[Target]:
    """The address of a server that answers everything at once, in this process."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Nothing, _HOST, 0)
    try:
        yield Target(_HOST, server.sockets[0].getsockname()[1], "none")
    finally:
        server.close()
        await server.wait_closed()

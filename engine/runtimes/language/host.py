"""The process that a language model computes in: orders in, pieces of answers out.

One event loop runs the scheduler's steps, one after another, and everything else between them. An
order that has arrived is followed before the step after the next one begins, so a cancelled request
is computed at most once more. What a step has drawn is sent in one go.

If the other side does not read, the model goes on, and what is new of each choice is put together
to one piece, which is sent when there is room. So what is kept here is never more than the answers
themselves, and no request waits for the reader of another.

The process ends with the socket, and when nothing can be computed any more.
"""

from __future__ import annotations

import asyncio
import resource
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import structlog

from engine.runtimes.artifacts import ArtifactDiffers, ArtifactRefused
from engine.runtimes.language import wire
from engine.runtimes.language.engine import Engine
from engine.runtimes.language.weights import load_model
from engine.runtimes.python_host import describe, die_with_parent

LAST_WORDS_SECONDS: Final = 1.0
"""How long the other side has to read what came before the end."""

_log = structlog.get_logger(__name__)


class Connection(asyncio.Protocol):
    """Frames in, to an engine; frames out, from it."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._buffer = bytearray()
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 4:
            end = 4 + int.from_bytes(self._buffer[:4], "big")
            if len(self._buffer) < end:
                return
            order = wire.decode_order(self._buffer[4:end])
            del self._buffer[:end]
            self._engine.follow(order)

    def pause_writing(self) -> None:
        self._engine.outbox.pause()

    def resume_writing(self) -> None:
        self._engine.outbox.resume()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()


def main(argument: str) -> None:
    arguments = wire.decode_arguments(argument)
    die_with_parent(arguments.parent_pid)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=arguments.socket_fd) as connected:
        loaded = load(arguments)
        if isinstance(loaded, wire.NotLoaded):
            connected.sendall(wire.framed(loaded))
            return
        failed = asyncio.run(serve(loaded, connected))
    if failed is not None:
        sys.exit(failed)


def load(arguments: wire.Arguments) -> Engine | wire.NotLoaded:
    """Ready to serve, or why not."""
    reason: Literal["artifact", "digest", "runtime", "memory"]
    try:
        model = load_model(Path(arguments.artifact), sha256=arguments.sha256)
        return Engine(model, arguments.config)
    except ArtifactDiffers as error:
        reason, detail = "digest", str(error)
    except ArtifactRefused as error:
        reason, detail = "artifact", str(error)
    except MemoryError as error:
        reason, detail = "memory", describe(error)
    except Exception as error:
        _log.exception("load_failed")
        reason, detail = "runtime", describe(error)
    return wire.NotLoaded(reason, detail)


async def serve(engine: Engine, connected: socket.socket) -> str | None:
    """Until the other side has gone: None; or until nothing can be computed any more: why."""
    connected.setblocking(False)
    connection = Connection(engine)
    transport, _ = await asyncio.get_running_loop().create_connection(
        lambda: connection, sock=connected
    )
    await engine.start(transport.write)
    lost = asyncio.create_task(connection.lost.wait())
    failed = asyncio.create_task(engine.failed())
    await asyncio.wait([lost, failed], return_when=asyncio.FIRST_COMPLETED)
    if not failed.done():
        failed.cancel()
        return None
    engine.outbox.send()
    transport.close()
    with suppress(TimeoutError):
        async with asyncio.timeout(LAST_WORDS_SECONDS):
            await lost
    return failed.result()


if __name__ == "__main__":
    main(sys.argv[1])

"""A process under load: the roles of `switchback up` or `serve`, in a process of their own.

It lives for as long as its end of a pipe does, so nothing is left when the bench dies.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Collection
from multiprocessing.connection import Connection

import msgspec
import uvloop

from switchback.bootstrap import write_credentials
from switchback.collector import settle_collector
from switchback.files import allow_files
from switchback.logs import configure_logs
from switchback.process import Role, open_process
from switchback.servers import Addresses
from switchback.settings import Settings


class Serving(msgspec.Struct, frozen=True):
    """Said once everything works."""

    pid: int
    host: str
    port: int
    """0 when the process has no gateway."""
    key: str


def serve(
    settings: Settings, addresses: Addresses, roles: Collection[Role], pipe: Connection
) -> None:
    """Send `Serving`; stop when the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when we stop
    allow_files()
    configure_logs(logging.WARNING)
    uvloop.run(_serve(settings, addresses, roles, pipe))


async def _serve(
    settings: Settings, addresses: Addresses, roles: Collection[Role], pipe: Connection
) -> None:
    stop = asyncio.Event()
    async with open_process(settings, addresses, roles) as process:
        key = ""
        if process.http is not None:
            key = (await write_credentials(settings, process)).key
        port = process.http.port if process.http is not None else 0
        settle_collector()
        pipe.send(Serving(os.getpid(), settings.host, port, key))
        loop = asyncio.get_running_loop()
        loop.add_reader(pipe.fileno(), stop.set)
        process.failure.add_done_callback(lambda _: stop.set())
        await stop.wait()
        loop.remove_reader(pipe.fileno())  # it is at its end, and would be read again and again
        if process.failure.done():
            process.failure.result()

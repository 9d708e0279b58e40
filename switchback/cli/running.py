"""`up` and `serve`: processes that run until they are told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any, Final

from cyclopts import Parameter

from switchback.bootstrap import write_credentials
from switchback.cli.application import app
from switchback.cli.failures import Failed
from switchback.cli.output import console
from switchback.cli.target import DataDir, settings_of
from switchback.collector import settle_collector
from switchback.logs import configure_logs
from switchback.process import ROLES, Process, Role, open_process
from switchback.servers import addresses, own_servers
from switchback.settings import Settings

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_EXTERNAL: Final = ("nats_url", "postgres_dsn", "redis_url", "secret")


@app.command
async def up(
    *,
    data_dir: DataDir = None,
    port: Annotated[int | None, Parameter(help="Of HTTP; 0 takes a free one. 8700.")] = None,
    host: Annotated[str | None, Parameter(help="Address to listen on. 127.0.0.1.")] = None,
) -> None:
    """Run everything in one process, on embedded servers, until interrupted."""
    configure_logs(logging.WARNING)
    settings = settings_of(data_dir, port=port, host=host)
    async with _stop_signal() as stopped, AsyncExitStack() as stack:
        found = await stack.enter_async_context(own_servers(settings))
        process = await stack.enter_async_context(open_process(settings, found))
        credentials = await write_credentials(settings, process)
        place = settings.data_dir.absolute() / "credentials.json"
        console.print(f"switchback listens on {credentials.url}", highlight=False, soft_wrap=True)
        console.print(f"credentials are in {place}", highlight=False, soft_wrap=True)
        await _until(stopped, process)
        console.print("stopping", highlight=False)


@app.command
async def serve(
    roles: Annotated[list[Role], Parameter(help=f"Any of {', '.join(ROLES)}.")],
    /,
    *,
    data_dir: DataDir = None,
    port: Annotated[int | None, Parameter(help="Of HTTP, for a gateway.")] = None,
    host: Annotated[str | None, Parameter(help="Address to listen on, for a gateway.")] = None,
) -> None:
    """Run roles against external servers, until interrupted."""
    configure_logs(logging.INFO)
    settings = settings_of(data_dir, port=port, host=host)
    _check_external(settings)
    async with (
        _stop_signal() as stopped,
        open_process(settings, addresses(settings), roles) as process,
    ):
        where = ""
        if process.http is not None:
            credentials = await write_credentials(settings, process)
            where = f" on {credentials.url}"
        console.print(f"serving {', '.join(roles)}{where}", highlight=False, soft_wrap=True)
        await _until(stopped, process)


def _check_external(settings: Settings) -> None:
    missing = [
        f"SWITCHBACK_{name.upper()}" for name in _EXTERNAL if getattr(settings, name) is None
    ]
    if missing:
        raise Failed(f"roles run against external servers: set {', '.join(missing)}")


async def _until(stopped: asyncio.Event, process: Process) -> None:
    """Told to stop, or a part failed; then that is raised."""
    settle_collector()
    waiting: asyncio.Future[Any] = asyncio.ensure_future(stopped.wait())
    await asyncio.wait({waiting, process.failure}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if process.failure.done():
        process.failure.result()


@asynccontextmanager
async def _stop_signal() -> AsyncIterator[asyncio.Event]:
    """Set at the first signal; a second one kills, should stopping take too long."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()

    def stop() -> None:
        stopped.set()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    yield stopped

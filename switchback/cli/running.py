"""`up` and `serve`: processes that run until they are told to stop."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from cyclopts import Parameter

from switchback.bootstrap import write_credentials
from switchback.cli.application import app
from switchback.cli.failures import Failed
from switchback.cli.output import console
from switchback.cli.target import DataDir, settings_of
from switchback.collector import settle_collector
from switchback.files import allow_files
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
    allow_files()
    configure_logs(logging.WARNING)
    settings = settings_of(data_dir, port=port, host=host)
    with _stopped_by_signals():
        async with own_servers(settings) as found, open_process(settings, found) as process:
            await _say_where(settings, process)
            await _until_failed(process)


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
    allow_files()
    configure_logs(logging.INFO)
    settings = settings_of(data_dir, port=port, host=host)
    _check_external(settings)
    with _stopped_by_signals():
        async with open_process(settings, addresses(settings), roles) as process:
            where = ""
            if process.http is not None:
                where = f" on {(await write_credentials(settings, process)).url}"
            console.print(f"serving {', '.join(roles)}{where}", highlight=False, soft_wrap=True)
            await _until_failed(process)


async def _say_where(settings: Settings, process: Process) -> None:
    credentials = await write_credentials(settings, process)
    place = settings.data_dir.absolute() / "credentials.json"
    console.print(f"switchback listens on {credentials.url}", highlight=False, soft_wrap=True)
    console.print(f"credentials are in {place}", highlight=False, soft_wrap=True)


def _check_external(settings: Settings) -> None:
    missing = [
        f"SWITCHBACK_{name.upper()}" for name in _EXTERNAL if getattr(settings, name) is None
    ]
    if missing:
        raise Failed(f"roles run against external servers: set {', '.join(missing)}")


async def _until_failed(process: Process) -> None:
    """Raises what a part of the process failed with."""
    settle_collector()
    await asyncio.wait({process.failure})
    process.failure.result()


@contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """The first signal ends the block cleanly wherever it is, also while it starts; a second one
    kills, should stopping take too long."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    assert task is not None, "verbs run in a task"
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        console.print("stopping", highlight=False)
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
        task.cancel()

    for number in _SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    except asyncio.CancelledError:
        if not stopped:
            raise
        task.uncancel()

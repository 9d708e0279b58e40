"""What a line runs on: fresh servers, gateways and nodes as processes, and one process for clients.

Everything that is measured is measured in a child process on uvloop, as the product runs; the
process that was started only waits. There are two processors for all of it on a small machine.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import shutil
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import mkdtemp
from types import MappingProxyType
from typing import Any, Final, TypeVar, TypeVarTuple

import msgspec
import uvloop

from switchback.bench.http import Target
from switchback.bench.serving import Serving, serve
from switchback.files import allow_files
from switchback.process import ROLES, Role
from switchback.servers import Addresses, own_servers
from switchback.settings import Settings

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

READY_SECONDS_MAX: Final = 60.0
STOP_SECONDS_MAX: Final = 30.0
_ONE_THREAD: Final = MappingProxyType(
    dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
)
"""Of linear algebra, as in the processes of language models."""
_context: Final = multiprocessing.get_context("spawn")


class BenchFailed(Exception):
    """A figure could not be had; the reason is in the message."""


class System(msgspec.Struct, frozen=True):
    """A running process of ours."""

    pid: int
    target: Target


class Clients:
    """The process of the clients; made by `open_clients`."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self._clients = ProcessPoolExecutor(1, _context, initializer=_begin)
        with _environment(_ONE_THREAD):  # which is read once, as the process begins
            self._clients.submit(_nothing)
        stack.push_async_callback(asyncio.to_thread, self._clients.shutdown)

    async def call(
        self,
        work: Callable[[*Arguments], Coroutine[Any, Any, T]],
        *arguments: *Arguments,
    ) -> T:
        """Run a coroutine function of some module in the clients' process."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._clients, _run, work, arguments)


class Stage(Clients):
    """Servers, and processes of ours on them; made by `open_stage`."""

    def __init__(self, settings: Settings, addresses: Addresses, stack: AsyncExitStack) -> None:
        super().__init__(stack)
        self.addresses = addresses
        self._settings = settings
        self._stack = stack

    async def start(self, *roles: Role, name: str = "local") -> System:
        """A process with these roles, or with all. Raises BenchFailed."""
        return await self._stack.enter_async_context(self.running(*roles, name=name))

    @asynccontextmanager
    async def running(
        self, *roles: Role, name: str = "local", **changes: Any
    ) -> AsyncIterator[System]:
        """The same for as long as the block lasts; `changes` are other settings than usual."""
        settings = msgspec.structs.replace(self._settings, gateway_id=name, node_id=name, **changes)
        async with _running(settings, self.addresses, roles or ROLES) as serving:
            target = Target(serving.host, serving.port, serving.key)
            yield System(serving.pid, target)


@asynccontextmanager
async def open_clients() -> AsyncIterator[Clients]:
    """For what needs no server."""
    async with AsyncExitStack() as stack:
        yield Clients(stack)


@asynccontextmanager
async def open_stage(directory: Path) -> AsyncIterator[Stage]:
    """Servers with empty logs and tables below a directory; everything is removed afterwards."""
    below = await asyncio.to_thread(_new_directory, directory)
    try:
        async with AsyncExitStack() as stack:
            settings = Settings(data_dir=below, port=0)
            addresses = await stack.enter_async_context(own_servers(settings))
            yield Stage(settings, addresses, stack)
    finally:
        await asyncio.to_thread(shutil.rmtree, below, ignore_errors=True)


def _new_directory(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return Path(mkdtemp(prefix="bench-", dir=directory))


@asynccontextmanager
async def _running(
    settings: Settings, addresses: Addresses, roles: tuple[Role, ...]
) -> AsyncIterator[Serving]:
    ours, theirs = _context.Pipe()
    process = _context.Process(target=serve, args=(settings, addresses, roles, theirs), daemon=True)
    await asyncio.to_thread(process.start)
    theirs.close()
    try:
        yield await asyncio.to_thread(_receive, ours)
    finally:
        ours.close()
        await asyncio.to_thread(process.join, STOP_SECONDS_MAX)
        if process.is_alive():
            process.kill()


def _receive(pipe: Connection) -> Serving:
    try:
        if pipe.poll(READY_SECONDS_MAX):
            serving: Serving = pipe.recv()
            return serving
    except EOFError:
        raise BenchFailed("a process ended before it was ready") from None
    raise BenchFailed(f"a process was not ready in {READY_SECONDS_MAX} s")


def _run(work: Callable[[*Arguments], Coroutine[Any, Any, T]], arguments: tuple[*Arguments]) -> T:
    return uvloop.run(work(*arguments))


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """For processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _nothing() -> None:
    pass


def _begin() -> None:
    allow_files()
    signal.signal(signal.SIGINT, signal.SIG_IGN)

"""A process of a version's own, which is spoken to in frames.

What it gets: one end of a pair of sockets, an environment without any variable of this process, an
empty working directory that is removed afterwards, no input. Of what it prints, the last 16 KiB are
kept for our log. Closing kills what it has started too. Its own end, however it comes, is told.

A frame is a length (4 bytes, big-endian) and that many bytes, either way. What they mean is the
business of whoever owns the child.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec
import psutil
import structlog

ENVIRONMENT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        # A second thread of linear algebra buys nothing on small models and spoils the others'
        # latency.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }
)
LENGTH_BYTES: Final = 4
_OUTPUT_BYTES_MAX: Final = 16 * 1024
_OUTPUT_SECONDS: Final = 0.5
"""How long the log waits for the last words of a process; what it started may hold the pipe."""

Command: TypeAlias = Callable[[int, str], Sequence[str]]
"""(the child's end of the socket, its working directory) -> what to execute."""
Take: TypeAlias = Callable[[bytes], None]
"""Called with each frame. Raises ValueError for one that means nothing."""
Over: TypeAlias = Callable[[str], None]
"""Called once, with the reason, when there will be no further frame."""

_log = structlog.get_logger(__name__)


class ChildEnded(Exception):
    """Nothing can be sent: the process has ended, or was closed."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Child:
    """One process."""

    def __init__(
        self, *, frame_bytes_max: int, close_seconds: float, take: Take, over: Over
    ) -> None:
        """`frame_bytes_max` of a frame from the child; `close_seconds` of grace before it is
        killed."""
        self._frame_bytes_max = frame_bytes_max
        self._close_seconds = close_seconds
        self._take = take
        self._over = over
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._directory: TemporaryDirectory[str] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._output = b""
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    @property
    def ended(self) -> str | None:
        """Why there will be no further frame; None while there may be."""
        return self._ended.result() if self._ended.done() else None

    @property
    def output(self) -> str:
        """The end of what it has printed."""
        return self._output.decode(errors="replace")

    async def start(self, command: Command, environment: Mapping[str, str] = ENVIRONMENT) -> None:
        """Raises OSError if there can be no process."""
        self._directory = TemporaryDirectory(prefix="switchback-version-")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        reader, self._writer = await asyncio.open_connection(sock=ours)
        with theirs:
            self._process = process = await asyncio.create_subprocess_exec(
                *command(theirs.fileno(), self._directory.name),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={**environment, "HOME": self._directory.name, "TMPDIR": self._directory.name},
                cwd=self._directory.name,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        printed = asyncio.create_task(self._keep_output(process))
        self._tasks = [
            printed,
            asyncio.create_task(self._read(reader)),
            asyncio.create_task(self._watch(process, printed)),
        ]

    def post(self, body: bytes) -> None:
        """Send a frame without waiting for room. For what is small, and follows what was sent."""
        if self._writer is not None and not self._ended.done():
            self._writer.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)

    async def send(self, body: bytes) -> None:
        """Send a frame, and wait for room for the next one. Raises ChildEnded."""
        assert self._writer is not None, "started before use"
        if self._ended.done():
            raise ChildEnded(self._ended.result())
        try:
            self.post(body)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise ChildEnded("the version's process has ended") from error

    async def memory_bytes(self) -> int:
        """Proportional set size of the process and its children: adds up over versions."""
        if self._process is None or self._ended.done():
            return 0
        return await asyncio.to_thread(_memory_bytes, self._process.pid)

    async def wait_ended(self) -> str:
        """Returns, with the reason, once there will be no further frame."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Free everything. Does nothing the second time, or if nothing was started."""
        self._end("closed")
        if self._writer is not None:
            self._writer.close()
        if self._process is not None:
            await self._stop(self._process)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._directory is not None:
            await asyncio.to_thread(self._directory.cleanup)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
                if length > self._frame_bytes_max:
                    raise ValueError(f"a frame of {length} bytes")
                self._take(await reader.readexactly(length))
            except (asyncio.IncompleteReadError, ConnectionError):
                return  # `_watch` says how it ended
            except (msgspec.MsgspecError, ValueError) as error:
                self._end(f"the version's process sent nonsense: {error}")
                return

    async def _keep_output(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while chunk := await process.stdout.read(_OUTPUT_BYTES_MAX):
            self._output = (self._output + chunk)[-_OUTPUT_BYTES_MAX:]

    async def _watch(
        self, process: asyncio.subprocess.Process, printed: asyncio.Task[None]
    ) -> None:
        detail = _ending(await process.wait())
        expected = self._ended.done()
        self._end(detail)
        if not expected:
            await asyncio.wait([printed], timeout=_OUTPUT_SECONDS)
            _log.warning("version_process_ended", detail=detail, output=self.output)

    def _end(self, detail: str) -> None:
        if not self._ended.done():
            self._ended.set_result(detail)
            self._over(detail)

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        # The closed socket asks it to end; the signal reaches what it has started itself.
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._close_seconds):
                    await process.wait()
        finally:
            _kill_session(process.pid)
            await process.wait()


def _ending(status: int) -> str:
    if status >= 0:
        return f"the version's process ended with status {status}"
    return f"the version's process was ended by {signal.Signals(-status).name}"


def _kill_session(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _memory_bytes(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        return sum(_own_memory_bytes(each) for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def _own_memory_bytes(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.uss))

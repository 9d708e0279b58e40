"""The runtime for user code: one process per version, so that unloading frees everything.

The artifact is a directory; `config.factory` names a callable in it that is called once with the
directory's path and returns either a callable `(inputs, parameters) -> outputs` or an object with
`predict(inputs, parameters)` and, if it wants to be warmed, `warm()`.

What the process gets: limits on memory, files and file size; an environment without any variable
of this process; an empty working directory that is removed afterwards; no input. Of what it prints,
the last 16 KiB are kept for our log. It ends with this process. It is *not* a sandbox: the code can
read what this user can read, and reach the network. Who may register python versions may run code.

Outputs may hold numpy arrays and scalars (anything with `tolist()`). An exception, an answer that
JSON cannot hold, and NaN or an infinity are failures of the version.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Literal, TypeAlias

import msgspec
import psutil
import structlog

from engine.runtimes.artifacts import ArtifactDiffers, ArtifactRefused, verify_artifact
from engine.runtimes.configs import PythonConfig
from engine.runtimes.python_host import Arguments
from engine.runtimes.runtime import LoadFailed, RuntimeFailed, RuntimeSettings
from events.catalogue.models import Artifact

IN_FLIGHT_MAX: Final = 256
"""Requests that are with the process at the same time; further ones wait."""

_HOST: Final = Path(__file__).with_name("python_host.py")
_OUTPUT_BYTES_MAX: Final = 16 * 1024
_OUTPUT_SECONDS: Final = 0.5
"""How long the log waits for the last words of a process; what it started may hold the pipe."""
_ENVIRONMENT: Final = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "LANG": "C.UTF-8",
    # A second thread of linear algebra buys nothing on small models and spoils the others' latency.
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

_log = structlog.get_logger(__name__)


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """A frame from the host."""

    id: int
    outcome: Literal["done", "failed", "memory"]
    result: Any
    trace: str


Pending: TypeAlias = "asyncio.Future[Reply]"
_decode_reply = msgspec.msgpack.Decoder(Reply).decode


class PythonRuntime:
    """One version's process."""

    def __init__(self, config: PythonConfig, artifact: Artifact, settings: RuntimeSettings) -> None:
        self._config = config
        self._artifact = artifact
        self._settings = settings
        self._process: asyncio.subprocess.Process | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._directory: TemporaryDirectory[str] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._pending: dict[int, Pending] = {}
        self._ids = itertools.count(1)
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._output = b""
        self._failures = 0
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def load(self) -> None:
        path = await self._verified_path()
        ready = self._expect(0)
        try:
            await self._start(path)
        except OSError as error:
            raise LoadFailed("runtime", f"no process could be started: {error}") from error
        reply = await ready
        self._check_load(reply)

    async def warm(self) -> None:
        try:
            await self._ask("warm", None, {})
        except RuntimeFailed as error:
            raise LoadFailed("runtime", error.detail) from error

    async def infer(self, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        return await self._ask("predict", inputs, parameters)

    async def memory_bytes(self) -> int:
        """Proportional set size of the process and its children: adds up over versions."""
        if self._process is None or self._ended.done():
            return 0
        return await asyncio.to_thread(_memory_bytes, self._process.pid)

    async def failed(self) -> str:
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
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

    async def _verified_path(self) -> Path:
        roots = self._settings.artifact_roots
        try:
            path = await asyncio.to_thread(verify_artifact, self._artifact, roots)
        except ArtifactDiffers as error:
            raise LoadFailed("digest", str(error)) from error
        except ArtifactRefused as error:
            raise LoadFailed("artifact", str(error)) from error
        if not path.is_dir():
            raise LoadFailed("artifact", "a python version's artifact is a directory")
        return path

    async def _start(self, path: Path) -> None:
        self._directory = TemporaryDirectory(prefix="switchback-python-")
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        reader, self._writer = await asyncio.open_connection(sock=ours)
        with theirs:
            self._process = await self._spawn(path, theirs.fileno(), self._directory.name)
        printed = asyncio.create_task(self._keep_output(self._process))
        self._tasks = [
            printed,
            asyncio.create_task(self._read_replies(reader)),
            asyncio.create_task(self._watch(self._process, printed)),
        ]

    async def _spawn(self, path: Path, fd: int, directory: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            # Isolated, and without the bytecode beside the sources, which no digest covers.
            *("-I", "-B", "-u", "-X", f"pycache_prefix={directory}/bytecode", str(_HOST)),
            msgspec.json.encode(self._arguments(path, fd)).decode(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=_ENVIRONMENT | {"HOME": directory, "TMPDIR": directory},
            cwd=directory,
            pass_fds=(fd,),
            start_new_session=True,
        )

    def _arguments(self, path: Path, fd: int) -> Arguments:
        return Arguments(
            socket_fd=fd,
            parent_pid=os.getpid(),
            artifact=str(path),
            factory=self._config.factory,
            concurrency=self._config.concurrency,
            memory_bytes_max=self._settings.python_memory_bytes_max,
            files_max=self._settings.python_files_max,
            file_bytes_max=self._settings.python_file_bytes_max,
            frame_bytes_max=self._settings.python_frame_bytes_max,
        )

    def _check_load(self, reply: Reply) -> None:
        if reply.outcome == "done":
            return
        _log.warning("load_failed", error=reply.result, trace=reply.trace, output=self._tail())
        reason: Literal["memory", "runtime"] = "memory" if reply.outcome == "memory" else "runtime"
        raise LoadFailed(reason, reply.result)

    async def _ask(self, verb: str, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        async with self._slots:
            id = next(self._ids)
            frame = self._frame(id, verb, inputs, parameters)
            answer = self._expect(id)
            try:
                await self._send(frame)
                reply = await answer
            finally:
                self._pending.pop(id, None)
        if reply.outcome != "done":
            self._log_failure(reply)
            raise RuntimeFailed(reply.result)
        return reply.result

    def _log_failure(self, reply: Reply) -> None:
        self._failures += 1
        if self._failures.bit_count() == 1:  # the 1st, 2nd, 4th, 8th...: a log is not a flood
            _log.warning(
                "version_failed", count=self._failures, error=reply.result, trace=reply.trace
            )

    def _frame(self, id: int, verb: str, inputs: Any, parameters: Mapping[str, Any]) -> bytes:
        try:
            body = msgspec.msgpack.encode((id, verb, inputs, parameters))
        except (TypeError, OverflowError, RecursionError) as error:
            raise RuntimeFailed(f"the inputs cannot be handed over: {error}") from error
        limit = self._settings.python_frame_bytes_max
        if len(body) > limit:
            raise RuntimeFailed(f"inputs of {len(body)} bytes; the limit is {limit}")
        return len(body).to_bytes(4, "big") + body

    def _expect(self, id: int) -> Pending:
        if self._ended.done():
            raise RuntimeFailed(self._ended.result())
        pending: Pending = asyncio.get_running_loop().create_future()
        self._pending[id] = pending
        return pending

    async def _send(self, frame: bytes) -> None:
        assert self._writer is not None, "loaded before use"
        try:
            self._writer.write(frame)
            await self._writer.drain()
        except (ConnectionError, RuntimeError) as error:
            raise RuntimeFailed("the version's process has ended") from error

    async def _read_replies(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                reply = await self._read_reply(reader)
            except (asyncio.IncompleteReadError, ConnectionError):
                return  # `_watch` says how it ended
            except (msgspec.MsgspecError, ValueError) as error:
                self._end(f"the version's process sent nonsense: {error}")
                return
            pending = self._pending.pop(reply.id, None)
            if pending is not None and not pending.done():
                pending.set_result(reply)

    async def _read_reply(self, reader: asyncio.StreamReader) -> Reply:
        length = int.from_bytes(await reader.readexactly(4), "big")
        if length > self._settings.python_frame_bytes_max:
            raise ValueError(f"a frame of {length} bytes")
        return _decode_reply(await reader.readexactly(length))

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
            _log.warning("version_process_ended", detail=detail, output=self._tail())

    def _end(self, detail: str) -> None:
        """Nothing is answered any more: tell everyone who waits."""
        if not self._ended.done():
            self._ended.set_result(detail)
        for pending in self._pending.values():
            if not pending.done():
                pending.set_result(Reply(0, "failed", detail, ""))
        self._pending.clear()

    async def _stop(self, process: asyncio.subprocess.Process) -> None:
        # The closed socket asks it to end; the signal reaches what it has started itself.
        try:
            await asyncio.wait_for(process.wait(), self._settings.python_close_seconds)
        except TimeoutError:
            pass
        finally:
            _kill_session(process.pid)
            await process.wait()

    def _tail(self) -> str:
        return self._output.decode(errors="replace")


def _ending(status: int) -> str:
    if status >= 0:
        return f"the version's process ended with status {status}"
    return f"the version's process was ended by {signal.Signals(-status).name}"


def _kill_session(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _memory_bytes(pid: int) -> int:
    try:
        process = psutil.Process(pid)
        return sum(_own_memory_bytes(each) for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def _own_memory_bytes(process: psutil.Process) -> int:
    memory = process.memory_full_info()
    return int(getattr(memory, "pss", memory.uss))

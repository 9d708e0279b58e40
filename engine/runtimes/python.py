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
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec
import structlog

from engine.runtimes.child import Child, ChildEnded
from engine.runtimes.configs import PythonConfig
from engine.runtimes.directories import verified_directory
from engine.runtimes.python_host import Arguments
from engine.runtimes.runtime import LoadFailed, RuntimeFailed, RuntimeSettings
from events.catalogue.models import Artifact

IN_FLIGHT_MAX: Final = 256
"""Requests that are with the process at the same time; further ones wait."""

_HOST: Final = Path(__file__).with_name("python_host.py")

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
        self._child = Child(
            frame_bytes_max=settings.python_frame_bytes_max,
            close_seconds=settings.python_close_seconds,
            take=self._take,
            over=self._over,
        )
        self._pending: dict[int, Pending] = {}
        self._ids = itertools.count(1)
        self._slots = asyncio.Semaphore(IN_FLIGHT_MAX)
        self._failures = 0

    async def load(self) -> None:
        path = await verified_directory(self._artifact, self._settings.artifact_roots)
        ready = self._expect(0)
        try:
            await self._child.start(lambda fd, directory: self._command(path, fd, directory))
        except OSError as error:
            raise LoadFailed("runtime", f"no process could be started: {error}") from error
        self._check_load(await ready)

    async def warm(self) -> None:
        try:
            await self._ask("warm", None, {})
        except RuntimeFailed as error:
            raise LoadFailed("runtime", error.detail) from error

    async def infer(self, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        return await self._ask("predict", inputs, parameters)

    async def memory_bytes(self) -> int:
        """Proportional set size of the process and its children: adds up over versions."""
        return await self._child.memory_bytes()

    async def failed(self) -> str:
        return await self._child.wait_ended()

    async def close(self) -> None:
        await self._child.close()

    def _command(self, path: Path, fd: int, directory: str) -> tuple[str, ...]:
        return (
            sys.executable,
            # Isolated, and without the bytecode beside the sources, which no digest covers.
            *("-I", "-B", "-u", "-X", f"pycache_prefix={directory}/bytecode", str(_HOST)),
            msgspec.json.encode(self._arguments(path, fd)).decode(),
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
        _log.warning(
            "load_failed", error=reply.result, trace=reply.trace, output=self._child.output
        )
        reason: Literal["memory", "runtime"] = "memory" if reply.outcome == "memory" else "runtime"
        raise LoadFailed(reason, reply.result)

    async def _ask(self, verb: str, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        async with self._slots:
            id = next(self._ids)
            frame = self._frame(id, verb, inputs, parameters)
            answer = self._expect(id)
            try:
                await self._child.send(frame)
                reply = await answer
            except ChildEnded as error:
                raise RuntimeFailed(error.detail) from error
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
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise RuntimeFailed(f"the inputs cannot be handed over: {error}") from error
        limit = self._settings.python_frame_bytes_max
        if len(body) > limit:
            raise RuntimeFailed(f"inputs of {len(body)} bytes; the limit is {limit}")
        return body

    def _expect(self, id: int) -> Pending:
        if self._child.ended is not None:
            raise RuntimeFailed(self._child.ended)
        pending: Pending = asyncio.get_running_loop().create_future()
        self._pending[id] = pending
        return pending

    def _take(self, body: bytes) -> None:
        reply = _decode_reply(body)
        pending = self._pending.pop(reply.id, None)
        if pending is not None and not pending.done():
            pending.set_result(reply)

    def _over(self, detail: str) -> None:
        """Nothing is answered any more: tell everyone who waits."""
        for pending in self._pending.values():
            if not pending.done():
                pending.set_result(Reply(0, "failed", detail, ""))
        self._pending.clear()

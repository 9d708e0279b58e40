"""One server process: started, waited for, stopped by its process id.

Guarantees: one owner at a time for a directory; the process dies with its owner, also when that is
killed (Linux parent-death signal); a process that an earlier owner left behind is stopped before a
new one starts; port and secret are chosen once per directory and kept, so that clients reconnect
after a restart. Does not guarantee that the port is still free then: if another program has taken
it, `start` raises ServerFailed.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import msgspec

from switchback.embedded.ownership import DirectoryInUse, OwnerLock
from switchback.embedded.ports import free_port
from switchback.embedded.processtree import ProcessMark, freeze_tree, kill_tree, thaw_tree
from switchback.private_files import write_private

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.01
_PR_SET_PDEATHSIG: Final = 1
_LOG_TAIL_BYTES: Final = 4_000
_LOG_BYTES_MAX: Final = 16 * 1024 * 1024

_libc: Final = ctypes.CDLL(None)  # loaded here: loading in a forked child may deadlock


class ServerFailed(Exception):
    """A server did not start or did not become ready. Carries the end of its own log."""

    def __init__(self, name: str, reason: str, log: str) -> None:
        super().__init__(f"{name}: {reason}\n{log}")
        self.name = name
        self.reason = reason


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What a server keeps over restarts: its port and its secret."""

    port: int
    secret: str


class Server(ABC):
    """A server whose files are all in one directory. Use as an async context manager.

    Start it from the main thread: the parent-death signal is bound to the thread that forks.
    """

    name: str

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self._lock = OwnerLock(self.directory / "owner.lock")
        self._process: subprocess.Popen[bytes] | None = None
        self._identity: Identity | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """How clients reach it, credentials included."""

    @abstractmethod
    def _prepare(self) -> list[str]:
        """Write configuration (blocking); the command line."""

    @abstractmethod
    async def _ready(self) -> bool:
        """Whether it is this server that answers, and not another one on the same port."""

    @property
    def _stop_signal(self) -> signal.Signals:
        return signal.SIGTERM

    @property
    def _death_signal(self) -> signal.Signals:
        """What the process gets when its owner dies."""
        return signal.SIGKILL

    @property
    def identity(self) -> Identity:
        """Read from the directory, or made at the first use."""
        if self._identity is None:
            path = self.directory / "identity.json"
            if path.exists():
                self._identity = msgspec.json.decode(path.read_bytes(), type=Identity)
            else:
                self.directory.mkdir(parents=True, exist_ok=True)
                self._identity = Identity(port=free_port(), secret=secrets.token_urlsafe(24))
                write_private(path, msgspec.json.encode(self._identity))
        return self._identity

    @property
    def pid(self) -> int:
        """Of the running process. Raises RuntimeError when there is none."""
        if self._process is None:
            raise RuntimeError(f"{self.name} is not running")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self) -> None:
        """Returns when it answers. Raises ServerFailed; then nothing is left running."""
        assert not self.running, f"{self.name} is running"
        self.directory.mkdir(parents=True, exist_ok=True)
        self._own_directory()
        try:
            await asyncio.to_thread(self._stop_predecessor)
            self._process = self._spawn(await asyncio.to_thread(self._prepare))
            await self._wait_until_ready(self._process)
        except BaseException:
            self.kill()
            raise

    async def stop(self) -> None:
        """A clean shutdown; killed if that takes too long."""
        try:
            if self._process is not None:
                self._process.send_signal(self._stop_signal)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    await asyncio.to_thread(self._process.wait, _STOP_SECONDS)
        finally:
            self.kill()

    def kill(self) -> None:
        """`kill -9` of the process and all its children, as a crash would."""
        if self._process is not None:
            if self._process.poll() is None:
                kill_tree(self._process.pid, within_seconds=_STOP_SECONDS)
            self._process.wait()
            self._process = None
        self._lock.release()

    def freeze(self) -> None:
        """Stop executing without closing anything, as a hung machine would."""
        freeze_tree(self.pid, within_seconds=_STOP_SECONDS)

    def thaw(self) -> None:
        """Go on after `freeze`."""
        thaw_tree(self.pid)

    def _own_directory(self) -> None:
        try:
            self._lock.acquire()
        except DirectoryInUse as error:
            raise self._failed(str(error)) from None

    async def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await self._ready():
                    if process.poll() is not None:
                        raise self._failed(f"ended with code {process.returncode}")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise self._failed(f"not ready within {_START_SECONDS} s") from None

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        path = self.directory / "server.log"
        if path.exists() and path.stat().st_size > _LOG_BYTES_MAX:
            path.replace(path.with_name("server.log.1"))
        with path.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=dies_with_parent(self._death_signal),
            )
        write_private(self._mark_path, msgspec.json.encode(ProcessMark.of(process.pid)))
        return process

    @property
    def _mark_path(self) -> Path:
        return self.directory / "process.json"

    def _stop_predecessor(self) -> None:
        if not self._mark_path.exists():
            return
        mark = msgspec.json.decode(self._mark_path.read_bytes(), type=ProcessMark)
        if mark.alive():
            kill_tree(mark.pid, within_seconds=_STOP_SECONDS)

    def _failed(self, reason: str) -> ServerFailed:
        path = self.directory / "server.log"
        log = path.read_bytes()[-_LOG_TAIL_BYTES:] if path.exists() else b""
        return ServerFailed(self.name, reason, log.decode(errors="replace"))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


def dies_with_parent(death_signal: signal.Signals) -> Callable[[], None]:
    """For `preexec_fn`: the child gets `death_signal` when the thread that forked it ends."""
    parent = os.getpid()

    def arm() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, death_signal)
        if os.getppid() != parent:  # it died before we were armed
            os._exit(1)

    return arm

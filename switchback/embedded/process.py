"""One server process: started, waited for, stopped by its process id.

Guarantees: the process dies with us, also when we are killed (Linux parent-death signal); a process
that an earlier owner of the same directory left behind is stopped before a new one starts; ports
are chosen once per directory and kept, so that clients reconnect after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import secrets
import signal
import socket
import subprocess
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Final, Self

import msgspec
import psutil

_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.01
_PR_SET_PDEATHSIG: Final = 1
_LOG_TAIL_BYTES: Final = 4_000


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


def free_port() -> int:
    """A TCP port of the loopback interface that nobody uses at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server(ABC):
    """A server whose files are all in one directory. Use as an async context manager."""

    name: str

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
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
        """Whether it answers."""

    @property
    def _stop_signal(self) -> signal.Signals:
        return signal.SIGTERM

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
                path.touch(mode=0o600)
                path.write_bytes(msgspec.json.encode(self._identity))
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
        """Returns when it answers. Raises ServerFailed."""
        self.directory.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(self._stop_predecessor)
        self._process = self._spawn(await asyncio.to_thread(self._prepare))
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not await self._ready():
                    if self._process.poll() is not None:
                        raise self._failed(f"ended with code {self._process.returncode}")
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            self.kill()
            raise self._failed(f"not ready within {_START_SECONDS} s") from None

    async def stop(self) -> None:
        """A clean shutdown; killed if that takes too long."""
        if self._process is None:
            return
        self._process.send_signal(self._stop_signal)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(self._process.wait, _STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """`kill -9` of the process and all its children, as a crash would."""
        if self._process is None:
            return
        _kill_tree(self._process.pid)
        self._process.wait()
        self._process = None

    def freeze(self) -> None:
        """Stop executing without closing anything, as a hung machine would."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """From the main thread: the parent-death signal is bound to the thread that forks."""
        with (self.directory / "server.log").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - our own command line
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            )
        (self.directory / "server.pid").write_text(str(process.pid))
        return process

    def _stop_predecessor(self) -> None:
        path = self.directory / "server.pid"
        if not path.exists():
            return
        with contextlib.suppress(psutil.Error, ValueError):
            process = psutil.Process(int(path.read_text()))
            if str(self.directory) in " ".join(process.cmdline()):
                _kill_tree(process.pid)
                process.wait(_STOP_SECONDS)

    def _failed(self, reason: str) -> ServerFailed:
        log = (self.directory / "server.log").read_bytes()[-_LOG_TAIL_BYTES:]
        return ServerFailed(self.name, reason, log.decode(errors="replace"))

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.stop()


async def answers(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


def _kill_tree(pid: int) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for victim in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

"""A process and its children: recognised over restarts of ours, signalled, killed."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, Self

import msgspec
import psutil

_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_START_TICKS_FIELD: Final = 19
_POLL_SECONDS: Final = 0.005


class ProcessMark(msgspec.Struct, frozen=True, kw_only=True):
    """Names one process for good: a process id alone is used again by others."""

    pid: int
    boot_id: str
    start_ticks: int
    """Kernel clock ticks from boot to the start of the process."""

    @classmethod
    def of(cls, pid: int) -> Self:
        """Raises FileNotFoundError when there is no such process."""
        ticks = int(_status(pid)[_START_TICKS_FIELD])
        return cls(pid=pid, boot_id=_BOOT_ID.read_text().strip(), start_ticks=ticks)

    def alive(self) -> bool:
        """Whether this very process still executes."""
        try:
            return ProcessMark.of(self.pid) == self and _status(self.pid)[0] != "Z"
        except (FileNotFoundError, ProcessLookupError):
            return False


def _status(pid: int) -> list[str]:
    """The fields of proc(5) from the state on; the command's name before it may hold anything."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(pid: int) -> list[psutil.Process]:
    """The process, then its descendants; empty when it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def freeze_tree(pid: int, *, within_seconds: float) -> None:
    """SIGSTOP to all of it; returns when none of it executes. Raises TimeoutError."""
    frozen = _signalled(pid, signal.SIGSTOP)
    _wait_until_none(frozen, _runs, within_seconds)


def thaw_tree(pid: int) -> None:
    _signalled(pid, signal.SIGCONT)


def kill_tree(pid: int, *, within_seconds: float) -> None:
    """`kill -9` of all of it; returns when none of it executes. Raises TimeoutError."""
    victims = _signalled(pid, signal.SIGKILL)
    _wait_until_none(victims, _exists, within_seconds)


def _signalled(pid: int, number: signal.Signals) -> list[psutil.Process]:
    processes = tree(pid)
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)
    return processes


def _wait_until_none(
    processes: Iterable[psutil.Process],
    holds: Callable[[psutil.Process], bool],
    within_seconds: float,
) -> None:
    deadline = time.monotonic() + within_seconds
    for process in processes:
        while holds(process):
            if time.monotonic() > deadline:
                raise TimeoutError(f"process {process.pid} ignores its signal")
            time.sleep(_POLL_SECONDS)


def _exists(process: psutil.Process) -> bool:
    # A zombie has let go of everything. Where nobody reaps orphans it stays one for ever.
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def _runs(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return _exists(process) and process.status() != psutil.STATUS_STOPPED
    return False

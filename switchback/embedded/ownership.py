"""Who may use a directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class DirectoryInUse(Exception):
    """Another live process runs the server of this directory."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path.parent} is in use by another process")
        self.path = path


class OwnerLock:
    """At most one process holds it; the kernel releases it when that process dies.

    A POSIX record lock, not `flock`: forked children do not inherit it, so a child that outlives
    its owner does not keep the directory. The same process may acquire it twice.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Raises DirectoryInUse."""
        if self._descriptor is not None:
            return
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise DirectoryInUse(self._path) from None
        self._descriptor = descriptor

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

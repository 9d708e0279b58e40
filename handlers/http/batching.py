"""`/nodes/{node}/batching`: what the schedulers on one node do now, by version."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import get

from engine.batching import Statistics
from events.catalogue.nodes import VersionRef
from events.event import SYSTEM_TENANT
from handlers.batching import VersionBatching
from handlers.http.access import needs
from handlers.http.call import Call
from handlers.http.parameters import Name


class VersionStatistics(Statistics, frozen=True, kw_only=True):
    """One version's scheduler, since the version was loaded."""

    tenant: str
    model: str
    version: str

    @classmethod
    def of(cls, told: VersionBatching) -> VersionStatistics:
        return cls(
            **msgspec.structs.asdict(told.version), **msgspec.structs.asdict(told.statistics)
        )


class NodeBatching(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant's versions that compute requests in batches; of tenant `system`, all."""

    node: str
    items: list[VersionStatistics]
    unanswered: list[VersionRef]
    """Loaded, but did not answer in time."""


@get("/nodes/{node:str}/batching", **needs("read"))
async def get_batching(request: Call, node: Name) -> NodeBatching:
    """Queue, batch, memory, rates and latencies of each of the tenant's versions on a node."""
    if request.min_position:
        await request.front.services.directory.reach(request.min_position)
    told = await request.front.services.batchings.of(node)
    return NodeBatching(
        node=node,
        items=[
            VersionStatistics.of(each)
            for each in told.versions
            if _sees(request.tenant, each.version)
        ],
        unanswered=[ref for ref in told.unanswered if _sees(request.tenant, ref)],
    )


def _sees(tenant: str, ref: VersionRef) -> bool:
    return tenant in (ref.tenant, SYSTEM_TENANT)


HANDLERS: tuple[Any, ...] = (get_batching,)

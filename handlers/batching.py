"""What a node's schedulers say of themselves: asked of `node.<id>.batching`.

Guarantees: an answer in bounded time. A version whose process hangs is named as unanswered; the
others' statistics are as of the moment they were asked. Nothing counts as use of a version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import ClassVar, Final, Protocol

import msgspec
import structlog

from engine.batching import Statistics
from engine.runtimes import Batching, Runtime, RuntimeFailed
from events.bus import Bus
from events.catalogue.nodes import VersionRef
from events.errors import LogError
from handlers.routing import Routing

STATISTICS_SECONDS: Final = 1.0
"""For one version to answer."""
REPLY_SECONDS: Final = 1.0
"""For the way to a node and back."""

_log = structlog.get_logger(__name__)


class VersionBatching(msgspec.Struct, frozen=True, kw_only=True):
    """One version's scheduler, on one node."""

    version: VersionRef
    statistics: Statistics


class BatchingReply(msgspec.Struct, frozen=True, kw_only=True):
    """Of `node.<id>.batching`, which is asked with nothing."""

    versions: tuple[VersionBatching, ...] = ()
    """By name."""
    unanswered: tuple[VersionRef, ...] = ()
    """Those that compute in batches but did not say how, by name."""


def batching_subject(node_id: str) -> str:
    return f"node.{node_id}.batching"


async def batching_of(runtimes: Iterable[tuple[VersionRef, Runtime]]) -> BatchingReply:
    """Of those that compute requests in batches, asked all at once."""
    asked = sorted((ref, runtime) for ref, runtime in runtimes if isinstance(runtime, Batching))
    answers = await asyncio.gather(*(_statistics(ref, runtime) for ref, runtime in asked))
    told = [(ref, answer) for (ref, _), answer in zip(asked, answers, strict=True)]
    return BatchingReply(
        versions=tuple(
            VersionBatching(version=ref, statistics=answer) for ref, answer in told if answer
        ),
        unanswered=tuple(ref for ref, answer in told if answer is None),
    )


async def _statistics(ref: VersionRef, runtime: Batching) -> Statistics | None:
    try:
        async with asyncio.timeout(STATISTICS_SECONDS):
            return await runtime.statistics()
    except (RuntimeFailed, TimeoutError) as error:
        _log.warning("a version does not tell its statistics", version=str(ref), error=str(error))
        return None


class NodeUnknown(Exception):
    """No node of this id ever joined."""

    code: ClassVar[str] = "not_found"

    def __init__(self, node_id: str) -> None:
        super().__init__(f"there is no node {node_id!r}")


class NodeSilent(Exception):
    """The node does not answer: it is lost, has left, or cannot be reached from here."""

    code: ClassVar[str] = "unavailable"

    def __init__(self, node_id: str) -> None:
        super().__init__(f"node {node_id!r} does not answer")


class Told(Protocol):
    """A node of this process."""

    @property
    def node_id(self) -> str: ...

    async def batching(self) -> BatchingReply: ...


class Batchings:
    """Asks any node; the one of this process without the bus."""

    def __init__(self, *, routing: Routing, bus: Bus, here: Told | None) -> None:
        self._routing = routing
        self._bus = bus
        self._here = here

    async def of(self, node_id: str) -> BatchingReply:
        """Raises NodeUnknown, NodeSilent."""
        if self._here is not None and self._here.node_id == node_id:
            return await self._here.batching()
        if node_id not in self._routing.nodes:
            raise NodeUnknown(node_id)
        try:
            reply = await self._bus.request(
                batching_subject(node_id), b"", timeout_s=STATISTICS_SECONDS + REPLY_SECONDS
            )
        except LogError as error:
            raise NodeSilent(node_id) from error
        return msgspec.msgpack.decode(reply, type=BatchingReply)

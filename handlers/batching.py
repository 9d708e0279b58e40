"""What a node's schedulers say of themselves: asked of `node.<id>.batching`.

Guarantees: an answer in bounded time. A version whose process hangs is named as unanswered; the
others' statistics are as of the moment they were asked. Nothing counts as use of a version.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

import msgspec
import structlog

from engine.batching import Statistics
from engine.runtimes import Batching, Runtime, RuntimeFailed
from events.catalogue.nodes import VersionRef

STATISTICS_SECONDS: Final = 1.0
"""For one version to answer."""

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

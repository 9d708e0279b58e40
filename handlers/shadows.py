"""Shadows: versions that get copies of requests, and whose answers are compared and thrown away.

Guarantees: a copy is sent after its request was answered, and nothing that becomes of it reaches
that request: it delays no answer, fails none, and counts neither as a request nor as a failure of
one. Copies under way are bounded, in all and for each version, so that a version that hangs leaves
room for others; what finds no room is dropped and counted. Does not guarantee that every copy ends:
those that are under way when the gateway ends, or whose requests allowed less time than the shadow
needs, are counted as mirrored and as nothing else.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import msgspec
import structlog

from engine.agreement import ComparisonFailed
from events.catalogue.endpoints import Comparison
from events.catalogue.nodes import VersionRef
from handlers.comparators import Comparators
from handlers.executions import (
    UNEXPECTED,
    DeadlineExceeded,
    Executed,
    Execution,
    InferenceFailed,
    RequestTimedOut,
)
from handlers.traffic.passages import Copy

_log = structlog.get_logger(__name__)

COPIES_MAX: Final = 256
"""Under way at once, comparing included; each holds its request and the answer to it."""
COPIES_PER_VERSION_MAX: Final = 64
COPY_SECONDS: Final = 30.0
"""How long a shadow may take, however long the request's own deadline was."""
COMPARE_FAILED: Final = "compare_failed"

Execute: TypeAlias = Callable[[VersionRef, Execution], Awaitable[Executed]]
"""Raises InferenceFailed."""


class Primary(msgspec.Struct, frozen=True, kw_only=True):
    """A request that was answered, and its answer."""

    inputs: Any
    parameters: dict[str, Any]
    outputs: Any
    execution_ms: float
    """Of the attempt that was answered, as it is measured of copies."""


class Shadows:
    """Sends copies and compares what comes back."""

    def __init__(self, *, execute: Execute, comparators: Comparators) -> None:
        self._execute = execute
        self._comparators = comparators
        self._under_way: set[asyncio.Task[None]] = set()
        self._by_version: Counter[VersionRef] = Counter()

    @property
    def under_way(self) -> int:
        """Copies that are sent and not compared yet."""
        return len(self._under_way)

    def mirror(
        self, ref: VersionRef, primary: Primary, *, comparison: Comparison, copy: Copy
    ) -> None:
        """Send a copy in the background, or drop it."""
        if len(self._under_way) >= COPIES_MAX or self._by_version[ref] >= COPIES_PER_VERSION_MAX:
            copy.dropped()
            return
        copy.sent()
        task = asyncio.create_task(self._run(ref, primary, comparison, copy))
        self._under_way.add(task)
        self._by_version[ref] += 1
        task.add_done_callback(lambda ended: self._ended(ended, ref))

    async def close(self) -> None:
        """Let copies go."""
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None], ref: VersionRef) -> None:
        self._under_way.discard(task)
        self._by_version[ref] -= 1
        if not self._by_version[ref]:
            del self._by_version[ref]

    async def _run(
        self, ref: VersionRef, primary: Primary, comparison: Comparison, copy: Copy
    ) -> None:
        try:
            outputs, took_ms = await self._answer(ref, primary)
            agreed = await self._comparators.agree(primary.outputs, outputs, comparison)
        except RequestTimedOut as failure:  # which says nothing about the version
            _log.info("shadow had no time", version=str(ref), detail=str(failure))
        except InferenceFailed as failure:
            copy.failed(code=failure.code)
            _log.info("shadow failed", version=str(ref), code=failure.code, detail=str(failure))
        except ComparisonFailed as error:
            copy.failed(code=COMPARE_FAILED)
            _log.warning("shadow not compared", version=str(ref), detail=str(error))
        except Exception:
            copy.failed(code=UNEXPECTED)
            _log.exception("shadow failed unexpectedly", version=str(ref))
        else:
            copy.compared(
                agreed=agreed, latency_ms=took_ms, primary_latency_ms=primary.execution_ms
            )

    async def _answer(self, ref: VersionRef, primary: Primary) -> tuple[Any, float]:
        """The shadow's outputs, and how long they took in milliseconds. Raises InferenceFailed."""
        execution = Execution(
            inputs=primary.inputs, parameters=primary.parameters, timeout_s=COPY_SECONDS
        )
        began = time.perf_counter()
        try:
            async with asyncio.timeout(COPY_SECONDS):
                executed = await self._execute(ref, execution)
        except TimeoutError:
            raise DeadlineExceeded(f"{ref} did not answer in {COPY_SECONDS} s") from None
        return executed.outputs, (time.perf_counter() - began) * 1_000

"""The data plane's entry: decide, execute, prove.

Guarantees: every answer carries the version that gave it, the position of the policy that chose it
and a signed receipt of the choice; a request that no node has begun is tried again until its
deadline, so swaps and restarts of nodes fail no request. Needs neither Postgres nor Redis, and no
NATS for versions that are resident in this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import structlog

from engine.routing import Decision, Receipt, decide_route, receipt_for, routing_key, sign
from events import Position
from events.catalogue.nodes import VersionRef
from handlers.executions import (
    DeadlineExceeded,
    EndpointUnknown,
    Executed,
    Execution,
    Executor,
    InferenceFailed,
    NotServed,
    VersionFailed,
)
from handlers.routing import Routing
from handlers.traffic import Windows

_log = structlog.get_logger(__name__)

RETRY_SECONDS: Final = 0.02
NOT_SERVED_SECONDS: Final = 5.0
"""How long a request waits for some node to serve its version."""
SHADOWS_MAX: Final = 64
"""Mirrored requests under way at once; more are dropped and counted."""


class Inference(msgspec.Struct, frozen=True, kw_only=True):
    """One answered request and the proof of its route."""

    outputs: Any
    version: str
    position: Position
    """Of the event that set the policy."""
    receipt: str
    rule: str | None
    overhead_ms: float
    """Spent outside the version."""
    attempts: int
    request_id: str


class _Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    tenant: str
    endpoint: str
    key: str | None
    attributes: Mapping[str, str]
    request_id: str
    inputs: Any
    parameters: dict[str, Any]


class _Routed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    ref: VersionRef
    decision: Decision
    receipt: Receipt


class Gateway:
    """Answers inference requests."""

    def __init__(
        self,
        *,
        routing: Routing,
        executors: tuple[Executor, ...],
        windows: Windows,
        receipt_secret: bytes,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._routing = routing
        self._executors = executors
        """In order of preference: this process's node, then the bus."""
        self._windows = windows
        self._secret = receipt_secret
        self._clock = clock
        self._shadows: set[asyncio.Task[None]] = set()
        self.shadows_dropped = 0

    async def infer(
        self,
        tenant: str,
        *,
        endpoint: str,
        inputs: Any,
        key: str | None,
        attributes: Mapping[str, str],
        parameters: Mapping[str, Any],
        request_id: str,
        deadline_s: float,
    ) -> Inference:
        """Raises InferenceFailed."""
        began = time.perf_counter()
        request = _Request(
            tenant=tenant,
            endpoint=endpoint,
            key=key,
            attributes=attributes,
            request_id=request_id,
            inputs=inputs,
            parameters=dict(parameters),
        )
        attempts = 0
        while True:
            attempts += 1
            left_s = deadline_s - (time.perf_counter() - began)
            try:
                routed = self._decide(request)
                execution = Execution(
                    inputs=inputs, parameters=request.parameters, timeout_s=left_s
                )
                executed = await self._attempt(routed.ref, execution)
                break
            except NotServed as failure:
                if not await _time_is_left(began, min(deadline_s, NOT_SERVED_SECONDS)):
                    self._windows.failed(tenant, endpoint, routed.ref.version, code=failure.code)
                    raise
            except (VersionFailed, DeadlineExceeded) as failure:
                self._windows.failed(tenant, endpoint, routed.ref.version, code=failure.code)
                raise
        took_ms = (time.perf_counter() - began) * 1_000
        decision = routed.decision
        self._windows.answered(tenant, endpoint, decision.version, latency_ms=took_ms)
        for version in decision.shadow:
            self._mirror(msgspec.structs.replace(routed.ref, version=version), execution)
        return Inference(
            outputs=executed.outputs,
            version=decision.version,
            position=decision.position,
            receipt=sign(routed.receipt, self._secret),
            rule=decision.rule,
            overhead_ms=round(took_ms - executed.runtime_ms, 3),
            attempts=attempts,
            request_id=request_id,
        )

    def _decide(self, request: _Request) -> _Routed:
        """By the table of this moment: a retry goes where the traffic goes by then."""
        route = self._routing.routes.get((request.tenant, request.endpoint))
        if route is None:
            raise EndpointUnknown(f"no endpoint {request.endpoint!r}")
        now_ms = int(self._clock() * 1_000)
        key = routing_key(route.table, request.key, request.request_id)
        decision = decide_route(route.table, key, now_ms, request.attributes)
        receipt = receipt_for(
            decision,
            tenant=request.tenant,
            endpoint=request.endpoint,
            now_ms=now_ms,
            request_id=request.request_id,
        )
        ref = VersionRef(tenant=request.tenant, model=route.state.model, version=decision.version)
        return _Routed(ref=ref, decision=decision, receipt=receipt)

    async def _attempt(self, ref: VersionRef, execution: Execution) -> Executed:
        for executor in self._executors[:-1]:
            try:
                return await executor.execute(ref, execution)
            except NotServed:
                continue
        return await self._executors[-1].execute(ref, execution)

    def _mirror(self, ref: VersionRef, execution: Execution) -> None:
        if len(self._shadows) >= SHADOWS_MAX:
            self.shadows_dropped += 1
            return
        task = asyncio.create_task(self._run_mirrored(ref, execution))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)

    async def _run_mirrored(self, ref: VersionRef, execution: Execution) -> None:
        try:
            await self._attempt(ref, execution)
        except InferenceFailed as failure:
            _log.info("shadow failed", version=str(ref), code=failure.code, detail=str(failure))

    async def close(self) -> None:
        """Let mirrored requests go."""
        for task in self._shadows:
            task.cancel()
        await asyncio.gather(*self._shadows, return_exceptions=True)


async def _time_is_left(began: float, limit_s: float) -> bool:
    """Whether there is, after a pause; without one if there would be none."""
    if time.perf_counter() - began + RETRY_SECONDS < limit_s:
        await asyncio.sleep(RETRY_SECONDS)
        return time.perf_counter() - began < limit_s
    return False

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

from engine.agreement import Function
from engine.routing import Decision, Receipt, decide_route, receipt_for, routing_key, sign
from events import Position
from events.catalogue.nodes import VersionRef
from handlers.comparators import NO_FUNCTIONS, Comparators
from handlers.executions import (
    UNEXPECTED,
    EndpointUnknown,
    Executed,
    Execution,
    Executor,
    InferenceFailed,
    NotServed,
)
from handlers.routes import Route, ref_of
from handlers.routing import Routing
from handlers.shadows import Primary, Shadows
from handlers.traffic.passages import Passage
from handlers.traffic.windows import Windows

RETRY_SECONDS: Final = 0.02
NOT_SERVED_SECONDS: Final = 5.0
"""How long a request waits for some node to serve its version."""


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
    began: float
    deadline_s: float


class _Routed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    route: Route
    decision: Decision
    receipt: Receipt
    key: int | None
    """The bucket of the request's key, if it has one that counts."""


class _Way:
    """How far a request has come."""

    __slots__ = ("attempts", "passage")

    def __init__(self) -> None:
        self.attempts = 0
        self.passage: Passage | None = None


class _Served(msgspec.Struct, frozen=True, kw_only=True):
    routed: _Routed
    passage: Passage
    executed: Executed
    execution_ms: float
    """Of the attempt that succeeded."""
    attempts: int


class Gateway:
    """Answers inference requests."""

    def __init__(
        self,
        *,
        routing: Routing,
        executors: tuple[Executor, ...],
        windows: Windows,
        receipt_secret: bytes,
        comparators: Mapping[str, Function] = NO_FUNCTIONS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._routing = routing
        self._executors = executors
        """In order of preference: this process's node, then the bus."""
        self._windows = windows
        self._secret = receipt_secret
        self._clock = clock
        self.shadows = Shadows(execute=self._attempt, comparators=Comparators(comparators))

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
        request = _Request(
            tenant=tenant,
            endpoint=endpoint,
            key=key,
            attributes=attributes,
            request_id=request_id,
            inputs=inputs,
            parameters=dict(parameters),
            began=time.perf_counter(),
            deadline_s=deadline_s,
        )
        served = await self._serve(request)
        took_ms = (time.perf_counter() - request.began) * 1_000
        served.passage.answered(latency_ms=took_ms)
        decision = served.routed.decision
        if decision.shadow:
            self._mirror(request, served)
        return Inference(
            outputs=served.executed.outputs,
            version=decision.version,
            position=decision.position,
            receipt=sign(served.routed.receipt, self._secret),
            rule=decision.rule,
            overhead_ms=round(took_ms - served.executed.runtime_ms, 3),
            attempts=served.attempts,
            request_id=request_id,
        )

    async def _serve(self, request: _Request) -> _Served:
        """The answer, its passage still open; without one the passage is ended here."""
        way = _Way()
        try:
            return await self._try(request, way)
        except InferenceFailed as failure:
            if way.passage is not None:
                failure.version = way.passage.version
                way.passage.failed(code=failure.code)
            raise
        except Exception:
            if way.passage is not None:
                way.passage.failed(code=UNEXPECTED)
            raise
        except BaseException:  # nobody waits for the answer any more
            if way.passage is not None:
                way.passage.left()
            raise

    async def _try(self, request: _Request, way: _Way) -> _Served:
        """Decide and execute until somebody serves it."""
        while True:
            routed = self._decide(request)
            way.attempts += 1
            way.passage = self._windows.begin(
                routed.route, routed.decision, key=routed.key, after=way.passage
            )
            began = time.perf_counter()
            execution = Execution(
                inputs=request.inputs,
                parameters=request.parameters,
                timeout_s=request.deadline_s - (began - request.began),
            )
            try:
                executed = await self._attempt(
                    ref_of(routed.route, routed.decision.version), execution
                )
            except NotServed:
                limit_s = min(request.deadline_s, NOT_SERVED_SECONDS)
                if not await _time_is_left(request.began, limit_s):
                    raise
                continue
            return _Served(
                routed=routed,
                passage=way.passage,
                executed=executed,
                execution_ms=(time.perf_counter() - began) * 1_000,
                attempts=way.attempts,
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
        return _Routed(
            route=route,
            decision=decision,
            receipt=receipt,
            key=None if key is request.request_id else decision.bucket,
        )

    async def _attempt(self, ref: VersionRef, execution: Execution) -> Executed:
        for executor in self._executors[:-1]:
            try:
                return await executor.execute(ref, execution)
            except NotServed:
                continue
        return await self._executors[-1].execute(ref, execution)

    def _mirror(self, request: _Request, served: _Served) -> None:
        primary = Primary(
            inputs=request.inputs,
            parameters=request.parameters,
            outputs=served.executed.outputs,
            execution_ms=served.execution_ms,
        )
        route, decision = served.routed.route, served.routed.decision
        for shadow in route.state.policy.shadow:
            if shadow.version in decision.shadow:
                self.shadows.mirror(
                    ref_of(route, shadow.version),
                    primary,
                    comparison=shadow.compare,
                    copy=served.passage.copy(shadow.version),
                )

    async def close(self) -> None:
        """Let mirrored requests go."""
        await self.shadows.close()


async def _time_is_left(began: float, limit_s: float) -> bool:
    """Whether there is, after a pause; without one if there would be none."""
    if time.perf_counter() - began + RETRY_SECONDS < limit_s:
        await asyncio.sleep(RETRY_SECONDS)
        return time.perf_counter() - began < limit_s
    return False

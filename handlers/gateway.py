"""The data plane's entry: decide, execute, prove.

Guarantees: every answer carries the version that gave it, the position of the policy that chose it
and a signed receipt of the choice. A request that no node has begun is tried again until its
deadline, so swaps and restarts of nodes fail no request; a stream that has begun ends on the
version that began it. Needs neither Postgres nor Redis, and no NATS for versions that are resident
in this process.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Unpack

from engine.agreement import Function
from engine.routing import Receipt, receipt_for, sign
from engine.runtimes.documents import Assembly, usage_of
from handlers.attempts import Asked, Attempts, Served
from handlers.checks import NO_CHECKS, Checks
from handlers.comparators import NO_FUNCTIONS, Comparators
from handlers.executions import Executor
from handlers.http.inference_ports import Asking
from handlers.nearest import Nearest
from handlers.proof import Proof
from handlers.routes import ref_of
from handlers.routing import Routing
from handlers.shadows import Primary, Shadows
from handlers.streaming import Chunks, Stream
from handlers.traffic.windows import Windows


class Inference(Proof, frozen=True, kw_only=True):
    """One answered request and the proof of its route."""

    outputs: Any


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
        checks: Mapping[str, Function] = NO_CHECKS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`executors`: in order of preference, what is nearest first."""
        self._nearest = Nearest(executors)
        self._attempts = Attempts(routing=routing, windows=windows, clock=clock)
        self._secret = receipt_secret
        self.checks = Checks(checks)
        self.shadows = Shadows(execute=self._nearest.execute, comparators=Comparators(comparators))

    async def infer(self, tenant: str, **asking: Unpack[Asking]) -> Inference:
        """Raises InferenceFailed."""
        asked = Asked(tenant=tenant, began=time.perf_counter(), **asking)
        served = await self._attempts.serve(asked, self._nearest.execute)
        outputs = served.answer.outputs
        usage = usage_of(outputs)
        took_ms = _since(asked.began)
        served.passage.answered(
            latency_ms=took_ms, tokens=0 if usage is None else usage.total_tokens
        )
        self._answered(asked, served, outputs)
        return Inference(
            outputs=outputs,
            version=served.passage.version,
            position=served.routed.decision.position,
            receipt=self._receipt(asked, served),
            rule=served.routed.decision.rule,
            overhead_ms=round(took_ms - served.answer.runtime_ms, 3),
            attempts=served.attempts,
            request_id=asked.request_id,
        )

    @asynccontextmanager
    async def stream(self, tenant: str, **asking: Unpack[Asking]) -> AsyncIterator[Stream]:
        """Entered when the first chunk has arrived; leaving it ends the work. Raises
        InferenceFailed."""
        asked = Asked(tenant=tenant, began=time.perf_counter(), **asking)
        served = await self._attempts.serve(asked, self._nearest.begin)
        overhead_ms = _since(asked.began) - served.answer.runtime_ms
        is_kept = served.passage.check is not None or served.routed.decision.shadow
        assembly = Assembly() if is_kept else None
        chunks = Chunks(
            asked,
            served,
            assembly=assembly,
            ended=lambda outputs: self._answered(asked, served, outputs),
        )
        try:
            yield Stream(
                version=served.passage.version,
                position=served.routed.decision.position,
                receipt=self._receipt(asked, served),
                rule=served.routed.decision.rule,
                overhead_ms=round(overhead_ms, 3),
                attempts=served.attempts,
                request_id=asked.request_id,
                chunks=chunks,
            )
        finally:
            await chunks.close()

    async def close(self) -> None:
        """Let mirrored requests and checks go."""
        await self.shadows.close()
        await self.checks.close()

    def _receipt(self, asked: Asked, served: Served[Any]) -> str:
        receipt: Receipt = receipt_for(
            served.routed.decision,
            tenant=asked.tenant,
            endpoint=asked.endpoint,
            now_ms=served.routed.now_ms,
            request_id=asked.request_id,
            answered_by=served.passage.version,
        )
        return sign(receipt, self._secret)

    def _answered(self, asked: Asked, served: Served[Any], outputs: Any) -> None:
        """The client has its answer; now for those who judge it or compare theirs with it."""
        self.checks.check(served.passage, inputs=asked.inputs, outputs=outputs)
        route, decision = served.routed.route, served.routed.decision
        if not decision.shadow:
            return
        primary = Primary(
            inputs=asked.inputs,
            parameters=asked.parameters,
            outputs=outputs,
            execution_ms=served.execution_ms,
        )
        for shadow in route.state.policy.shadow:
            if shadow.version in decision.shadow:
                self.shadows.mirror(
                    ref_of(route, shadow.version),
                    primary,
                    comparison=shadow.compare,
                    copy=served.passage.copy(shadow.version),
                )


def _since(began: float) -> float:
    return (time.perf_counter() - began) * 1_000

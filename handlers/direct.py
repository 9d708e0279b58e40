"""Requests to a version by its name, past the policy of its endpoint.

They prove nothing about the policy and weigh nothing in its judgement: no receipt, no rule, no
window counts them, for a split is judged by requests that it distributed itself.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from handlers.attempts import LAST_MOMENT_SECONDS, NOT_SERVED_SECONDS, RETRY_SECONDS
from handlers.executions import (
    EndpointUnknown,
    Execution,
    Executor,
    InferenceFailed,
    NotServed,
)
from handlers.gateway import Inference
from handlers.nearest import Nearest
from handlers.routes import ref_of
from handlers.routing import Routing


class VersionNotHeld(InferenceFailed):
    """The endpoint neither routes to the version nor keeps it ready."""

    code: ClassVar[str] = "not_found"


class Direct:
    """Answers by the version that was asked for, if the endpoint holds it ready."""

    def __init__(self, *, routing: Routing, executors: tuple[Executor, ...]) -> None:
        """`executors`: in order of preference, as the gateway's."""
        self._routing = routing
        self._nearest = Nearest(executors)

    async def infer_version(
        self,
        tenant: str,
        *,
        endpoint: str,
        version: str,
        inputs: Any,
        parameters: Mapping[str, Any],
        request_id: str,
        deadline_s: float,
    ) -> Inference:
        """Raises InferenceFailed."""
        began = time.perf_counter()
        route = self._routing.routes.get((tenant, endpoint))
        if route is None:
            raise EndpointUnknown(f"no endpoint {endpoint!r}")
        ref = ref_of(route, version)
        if ref not in route.pins:
            raise VersionNotHeld(f"endpoint {endpoint!r} holds no version {version[:80]!r} ready")
        attempts = 0
        while True:
            attempts += 1
            spent_s = time.perf_counter() - began
            execution = Execution(
                inputs=inputs,
                parameters=dict(parameters),
                timeout_s=max(deadline_s - spent_s, LAST_MOMENT_SECONDS),
                request_id=request_id,
            )
            try:
                executed = await self._nearest.execute(ref, execution)
                break
            except InferenceFailed as failure:
                is_over = spent_s + RETRY_SECONDS >= min(deadline_s, NOT_SERVED_SECONDS)
                if is_over or not isinstance(failure, NotServed):
                    failure.version = version
                    raise
                await asyncio.sleep(RETRY_SECONDS)
        took_ms = (time.perf_counter() - began) * 1_000
        return Inference(
            outputs=executed.outputs,
            version=version,
            position=route.table.position,
            receipt="",
            rule=None,
            overhead_ms=round(took_ms - executed.runtime_ms, 3),
            attempts=attempts,
            request_id=request_id,
        )

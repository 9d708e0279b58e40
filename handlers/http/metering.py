"""What the gateway counts about HTTP itself, and the metrics of inference. Prometheus names.

The outermost wrapper of the application. Labels are bounded: paths are route templates, codes are
ours, versions appear only where a request was really answered or failed by one, and of many
versions those that were not asked for longest are forgotten. What versions and shadows do is told
by `handlers.traffic.metrics`.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from functools import lru_cache
from typing import Final, Generic, TypeVar

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Histogram

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_OVERHEAD_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
SERIES_MAX: Final = 4_096
"""Of one family by version."""
UNKNOWN_ROUTE: Final = "unknown"

_Child = TypeVar("_Child", Counter, Histogram)


class HttpMetrics:
    """Families on one registry; make one per registry."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "switchback_http_requests",
            "HTTP requests answered.",
            ["method", "route", "status"],
            registry=registry,
        )
        self.seconds = Histogram(
            "switchback_http_request_seconds",
            "From the first byte of a request to the last of its answer.",
            ["method", "route"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.inferences = Counter(
            "switchback_inference_requests",
            "Inference requests answered or failed, by problem code.",
            ["tenant", "endpoint", "version", "code"],
            registry=registry,
        )
        self.overhead = Histogram(
            "switchback_inference_overhead_seconds",
            "Time of an inference request outside its version.",
            ["tenant", "endpoint", "version"],
            buckets=_OVERHEAD_SECONDS,
            registry=registry,
        )
        # Looking a child up takes a lock and a tuple of strings each time.
        self.requests_of = lru_cache(maxsize=4096)(self.requests.labels)
        self.seconds_of = lru_cache(maxsize=1024)(self.seconds.labels)
        self.inferences_of = _Series(self.inferences)
        self.overhead_of = _Series(self.overhead)

    def inferred(self, tenant: str, endpoint: str, version: str, overhead_s: float) -> None:
        """One request was answered."""
        self.inferences_of(tenant, endpoint, version, "ok").inc()
        self.overhead_of(tenant, endpoint, version).observe(overhead_s)

    def inference_failed(self, tenant: str, endpoint: str, version: str, code: str) -> None:
        """One request failed. Endpoints that do not exist get no label: anyone can name them."""
        if code != "not_found":
            self.inferences_of(tenant, endpoint, version, code).inc()


class _Series(Generic[_Child]):
    """A family's children by their labels; the least recently used go when there are too many."""

    def __init__(self, family: _Child) -> None:
        self._family: _Child = family
        self._children: OrderedDict[tuple[str, ...], _Child] = OrderedDict()

    def __call__(self, *labels: str) -> _Child:
        known = self._children.get(labels)
        if known is not None:
            self._children.move_to_end(labels)
            return known
        child: _Child = self._family.labels(*labels)
        self._children[labels] = child
        while len(self._children) > SERIES_MAX:
            oldest, _ = self._children.popitem(last=False)
            self._family.remove(*oldest)
        return child


class Metered:
    """ASGI wrapper around the whole application."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def send_seen(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_seen)
        finally:
            method = scope["method"]
            route = scope.get("path_template") or UNKNOWN_ROUTE
            self._metrics.requests_of(method, route, str(status)).inc()
            self._metrics.seconds_of(method, route).observe(time.perf_counter() - began)

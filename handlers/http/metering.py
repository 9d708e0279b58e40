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
from typing import Final, Generic, TypeAlias, TypeVar

from litestar.enums import ScopeType
from litestar.types import ASGIApp, Message, Receive, Scope, Send
from prometheus_client import CollectorRegistry, Counter, Histogram

from engine.runtimes.documents import Usage
from handlers.http.inference_ports import StreamedInference
from handlers.http.stream_times import StreamTimes

_VERSION: Final = ("tenant", "endpoint", "version")
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_OVERHEAD_SECONDS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.25)
_FIRST_SECONDS: Final = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
)  # fmt: skip
_TOKEN_SECONDS: Final = (
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0,
)  # fmt: skip
SERIES_MAX: Final = 4_096
"""Of one family by version."""
UNKNOWN_ROUTE: Final = "unknown"

_Which: TypeAlias = tuple[str, str, str]
"""Tenant, endpoint, version."""
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
            [*_VERSION, "code"],
            registry=registry,
        )
        self.overhead = Histogram(
            "switchback_inference_overhead_seconds",
            "Time of an inference request outside its version.",
            _VERSION,
            buckets=_OVERHEAD_SECONDS,
            registry=registry,
        )
        self.first_token = Histogram(
            "switchback_time_to_first_token_seconds",
            "From a request to the first that its stream says.",
            _VERSION,
            buckets=_FIRST_SECONDS,
            registry=registry,
        )
        self.output_token = Histogram(
            "switchback_time_per_output_token_seconds",
            "Mean between two tokens of a stream.",
            _VERSION,
            buckets=_TOKEN_SECONDS,
            registry=registry,
        )
        self.tokens = Counter(
            "switchback_tokens",
            "Tokens of answered requests as their versions count them, by kind.",
            [*_VERSION, "kind"],
            registry=registry,
        )
        # Looking a child up takes a lock and a tuple of strings each time.
        self.requests_of = lru_cache(maxsize=4096)(self.requests.labels)
        self.seconds_of = lru_cache(maxsize=1024)(self.seconds.labels)
        self.inferences_of = _Series(self.inferences)
        self.overhead_of = _Series(self.overhead)
        self.first_token_of = _Series(self.first_token)
        self.output_token_of = _Series(self.output_token)
        self.tokens_of = _Series(self.tokens)

    def inferred(
        self,
        tenant: str,
        endpoint: str,
        version: str,
        overhead_s: float,
        usage: Usage | None = None,
    ) -> None:
        """One request was answered, with these tokens."""
        self.inferences_of(tenant, endpoint, version, "ok").inc()
        self.overhead_of(tenant, endpoint, version).observe(overhead_s)
        self._used((tenant, endpoint, version), usage)

    def inference_failed(self, tenant: str, endpoint: str, version: str, code: str) -> None:
        """One request failed. Endpoints that do not exist get no label: anyone can name them."""
        if code != "not_found":
            self.inferences_of(tenant, endpoint, version, code).inc()

    def streamed(
        self, tenant: str, endpoint: str, stream: StreamedInference, times: StreamTimes, code: str
    ) -> None:
        """One stream that had begun has ended: `ok`, or the code of why before its end."""
        which = (tenant, endpoint, stream.version)
        self.inferences_of(*which, code).inc()
        self.overhead_of(*which).observe(stream.overhead_ms / 1_000)
        if times.first_token_s is not None:
            self.first_token_of(*which).observe(times.first_token_s)
        if times.output_token_s is not None:
            self.output_token_of(*which).observe(times.output_token_s)
        self._used(which, times.usage)

    def _used(self, which: _Which, usage: Usage | None) -> None:
        if usage is None:
            return
        for kind, count in (
            ("prompt", usage.prompt_tokens),
            ("completion", usage.completion_tokens),
        ):
            if count > 0:
                self.tokens_of(*which, kind).inc(count)


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

"""What the HTTP layer is built from: the rest of the house, limits, and what it keeps itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
from prometheus_client import CollectorRegistry

from events import EventLog
from handlers.http.directory import Directory, VersionInferences
from handlers.http.inference_ports import Inferences
from handlers.http.metering import HttpMetrics
from handlers.http.ports import Batchings, Budgets, Operations, Readiness, Tenants
from handlers.http.streams import Streams
from projections.queries import Queries

FRONT: Final = "front"
"""The key of `Front` in the application's state."""
MIB: Final = 1024 * 1024


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """Everything the HTTP layer stands on."""

    tenants: Tenants
    operations: Operations
    queries: Queries
    inferences: Inferences
    budgets: Budgets
    direct: VersionInferences
    directory: Directory
    batchings: Batchings
    readiness: Readiness
    log: EventLog
    metrics: CollectorRegistry
    before_scrape: Callable[[], Awaitable[None]]
    """Called, in bounded time, before the metrics are told."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds on requests."""

    control_body_bytes_max: int = MIB
    inference_body_bytes_max: int = 8 * MIB
    inference_timeout_s: float = 60.0


class Document:
    """A generated document, made when somebody first asks for it: it takes a fifth of a second."""

    def __init__(self, generate: Callable[[], dict[str, Any]]) -> None:
        self._generate = generate
        self._text: bytes | None = None

    async def text(self) -> bytes:
        if self._text is None:
            self._text = await asyncio.to_thread(lambda: msgspec.json.encode(self._generate()))
        return self._text


class Front(msgspec.Struct, frozen=True, kw_only=True):
    """What handlers reach by `call.front`."""

    services: Services
    limits: Limits
    metrics: HttpMetrics
    streams: Streams
    documents: dict[str, Document]
    """`openapi` and `asyncapi`, filled once the routes are known."""

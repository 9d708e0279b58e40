"""Executing on upstreams straight from the gateway: no node and no bus between them.

Guarantees: only versions that some node has loaded are asked, so that a swap to an upstream that is
away takes no traffic; what a client has begun ends on the upstream that began it, also when its
version is no longer needed. Not guaranteed: that gateways share a version's cap or breaker; each
has its own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Final

import msgspec

from engine.runtimes import RuntimeFailed, RuntimeSettings
from engine.runtimes.upstream import Client, Statistics, UpstreamConfig
from events import Position
from events.catalogue.models import VersionRegistered
from events.catalogue.nodes import VersionRef
from handlers.executions import (
    Chunk,
    Executed,
    Execution,
    NotServed,
    VersionFailed,
    failure_of,
)
from handlers.routing import Routing

RUNTIME: Final = "upstream"


class _Held:
    """A version's client, and who uses it."""

    __slots__ = ("client", "is_resident", "looked_at", "under_way")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.under_way = 0
        self.is_resident = False
        """As of the position `looked_at`."""
        self.looked_at: Position = -1


class Upstreams:
    """An Executor for versions of the runtime `upstream`; it serves no others. One event loop."""

    def __init__(
        self,
        *,
        routing: Routing,
        settings: RuntimeSettings,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._routing = routing
        self._settings = settings
        self._environment = environment
        self._held: dict[VersionRef, _Held] = {}
        self._swept_at: Position = -1
        self._dropped: set[_Held] = set()
        """No longer needed, and still in use."""
        self._closing: set[asyncio.Task[None]] = set()
        self._is_closed = False

    @property
    def statistics(self) -> dict[VersionRef, Statistics]:
        """Of the upstreams that were asked and are still needed. May be read in any thread."""
        held = self._held.copy()
        return {ref: each.client.upstream.statistics for ref, each in held.items()}

    async def execute(self, ref: VersionRef, execution: Execution) -> Executed:
        held = self._for(ref)
        held.under_way += 1
        try:
            answered = await held.client.infer(
                execution.inputs,
                execution.parameters,
                request_id=execution.request_id,
                timeout_s=execution.timeout_s,
            )
        except RuntimeFailed as failure:
            raise failure_of(failure) from failure
        finally:
            self._leave(held)
        return Executed(outputs=answered.outputs, runtime_ms=answered.upstream_s * 1_000)

    async def stream(self, ref: VersionRef, execution: Execution) -> AsyncGenerator[Chunk, None]:
        held = self._for(ref)
        held.under_way += 1
        began = time.perf_counter()
        pieces = held.client.stream(
            execution.inputs,
            execution.parameters,
            request_id=execution.request_id,
            patience_s=execution.timeout_s,
        )
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    yield Chunk(
                        outputs=piece.outputs,
                        runtime_ms=(time.perf_counter() - began) * 1_000,
                        is_followed=piece.is_followed,
                    )
        except RuntimeFailed as failure:
            raise failure_of(failure) from failure
        finally:
            self._leave(held)

    async def close(self) -> None:
        """Requests under way fail with VersionUnavailable; nothing is served any more."""
        self._is_closed = True
        for held in (*self._held.values(), *self._dropped):
            self._close(held)
        self._held.clear()
        await asyncio.gather(*self._closing)

    def _for(self, ref: VersionRef) -> _Held:
        """Raises NotServed. It is on the way of every request, whatever its version's runtime."""
        registered = self._registered(ref)
        if registered is None or registered.runtime != RUNTIME or self._is_closed:
            raise NotServed(f"{ref} is not asked from here")
        if self._routing.position != self._swept_at:
            self._sweep()
        held = self._held.get(ref)
        if held is None:
            held = self._meet(ref, registered)
        if held.looked_at != self._routing.position:
            held.looked_at = self._routing.position
            held.is_resident = self._is_resident(ref)
        if not held.is_resident:
            raise NotServed(f"no node has loaded {ref}")
        return held

    def _registered(self, ref: VersionRef) -> VersionRegistered | None:
        model = self._routing.models.get((ref.tenant, ref.model))
        return None if model is None else model.versions.get(ref.version)

    def _is_resident(self, ref: VersionRef) -> bool:
        return any(ref in node.resident for node in self._routing.nodes.values())

    def _meet(self, ref: VersionRef, registered: VersionRegistered) -> _Held:
        if not self._is_resident(ref):
            raise NotServed(f"no node has loaded {ref}")
        try:
            config = msgspec.convert(registered.config, UpstreamConfig)
        except msgspec.ValidationError as error:  # registered by a release that knew it otherwise
            raise VersionFailed(f"config: {error}") from error
        client = Client(config, self._settings, environment=self._environment)
        held = self._held[ref] = _Held(client)
        return held

    def _sweep(self) -> None:
        """Let go of what no endpoint needs any more."""
        self._swept_at = self._routing.position
        for ref in [ref for ref in self._held if ref not in self._routing.pinned]:
            held = self._held.pop(ref)
            if held.under_way:
                self._dropped.add(held)
            else:
                self._close(held)

    def _leave(self, held: _Held) -> None:
        held.under_way -= 1
        if not held.under_way and held in self._dropped:
            self._close(held)

    def _close(self, held: _Held) -> None:
        self._dropped.discard(held)
        task = asyncio.ensure_future(held.client.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

"""The runtime `upstream`: a version that runs elsewhere, held ready by a node.

Guarantees: an upstream that does not answer, or refuses our key, at the time of its load is not
loaded; a node tries again what endpoints need. Once loaded it stays, however the upstream fares:
its circuit breaker keeps requests away for as long as it fails, and its health is in the log.

Not guaranteed: that the upstream knows the model by the configured name, which not every one can
be asked without computing something.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from random import Random
from typing import Any, Final

import structlog

from engine.runtimes.runtime import LoadFailed, RuntimeFailed, RuntimeSettings
from engine.runtimes.upstream.client import Client
from engine.runtimes.upstream.config import UpstreamConfig
from engine.runtimes.upstream.health import UNKNOWN, Health, Watch

CLIENT_BYTES: Final = 256 * 2**10
"""What a client takes with a few idle connections, about."""

_log = structlog.get_logger(__name__)


class UpstreamRuntime:
    """One upstream that a node has loaded. Runtime and Streaming."""

    def __init__(
        self,
        config: UpstreamConfig,
        settings: RuntimeSettings,
        *,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._config = config
        self._settings = settings
        self._environment = environment
        self._client: Client | None = None
        self._watch: Watch | None = None
        self._watching: asyncio.Task[None] | None = None

    @property
    def health(self) -> Health:
        """What the last probes found."""
        return UNKNOWN if self._watch is None else self._watch.health

    async def load(self) -> None:
        """Raises LoadFailed when the key cannot be read or the upstream does not answer."""
        self._client = Client(self._config, self._settings, environment=self._environment)
        upstream = self._client.upstream
        found = await upstream.probe()
        if not found.is_healthy:
            raise LoadFailed("runtime", found.detail)
        self._watch = Watch(
            upstream.probe,
            random=Random(),  # noqa: S311 - spreads probes, keeps no secret
            on_change=self._changed,
        )
        self._watch.take(found)
        self._watching = asyncio.create_task(self._watch.run(), name="watch upstream")

    async def warm(self) -> None:
        """There is nothing to warm here: a request would be computed, and perhaps billed."""

    async def infer(self, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        answered = await self._ready().infer(inputs, parameters)
        return answered.outputs

    async def stream(self, inputs: Any, parameters: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        async with aclosing(self._ready().stream(inputs, parameters)) as pieces:
            async for piece in pieces:
                yield piece.outputs

    async def memory_bytes(self) -> int:
        return CLIENT_BYTES

    async def failed(self) -> str:
        """Never returns: an upstream that is away may come back."""
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
        if self._client is not None:
            await self._client.close()

    def _ready(self) -> Client:
        if self._client is None:
            raise RuntimeFailed("not loaded")
        return self._client

    def _changed(self, health: Health) -> None:
        about = {"host": self._config.base.host, "model": self._config.model}
        if health.is_healthy:
            _log.info("upstream is well", **about)
        else:
            _log.warning("upstream is not well", detail=health.detail, **about)

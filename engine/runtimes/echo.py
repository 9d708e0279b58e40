"""The runtime for rehearsals: needs no model, and fails on request. See EchoConfig."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from random import Random
from typing import Any

from engine.runtimes.configs import EchoConfig
from engine.runtimes.runtime import LoadFailed, RuntimeFailed


class EchoRuntime:
    """Answers `{"answer": <config.answer>, "inputs": <inputs>}`."""

    def __init__(self, config: EchoConfig) -> None:
        self._config = config
        self._random = Random(config.seed)  # noqa: S311 - rehearsals repeat, they keep no secret
        self._ballast = b""
        self._closed = asyncio.Event()

    async def load(self) -> None:
        await asyncio.sleep(self._config.load_ms / 1000)
        if self._config.load_error is not None:
            raise LoadFailed("runtime", self._config.load_error)
        self._ballast = await asyncio.to_thread(_ballast, self._config.ballast_bytes)

    async def warm(self) -> None:
        """There is nothing to warm."""

    async def infer(self, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        if self._closed.is_set():
            raise RuntimeFailed("closed")
        # Both numbers are drawn for every request, so that one setting does not shift the other.
        delay, luck = self._random.random(), self._random.random()
        latency_ms = self._config.latency_ms + delay * self._config.jitter_ms
        if latency_ms:
            await self._wait(latency_ms / 1000)
        if luck < self._config.error_rate:
            raise RuntimeFailed("failed as configured by error_rate")
        return {"answer": self._config.answer, "inputs": inputs}

    async def memory_bytes(self) -> int:
        return sys.getsizeof(self._ballast)

    async def failed(self) -> str:
        never: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        return await never

    async def close(self) -> None:
        self._closed.set()
        self._ballast = b""

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._closed.wait(), seconds)
        except TimeoutError:
            return
        raise RuntimeFailed("closed")


def _ballast(size_bytes: int) -> bytes:
    try:
        return b"\1" * size_bytes  # not zeros: pages of zeros need not exist
    except MemoryError as error:
        raise LoadFailed("memory", f"no {size_bytes} bytes to be had") from error

"""An upstream as versions are spoken to: inputs and parameters in, documents out.

Nodes have one in the runtime that they loaded, gateways one of their own, see
`handlers.upstreams`. What fails is raised as a runtime's failure, see `asking`.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Mapping
from random import Random
from typing import Any

import msgspec

from engine.runtimes.runtime import RequestRefused, RuntimeSettings
from engine.runtimes.upstream.answers import document_in
from engine.runtimes.upstream.asking import call_of, runtime_failure
from engine.runtimes.upstream.config import UpstreamConfig
from engine.runtimes.upstream.errors import UpstreamFailed
from engine.runtimes.upstream.keys import Keys
from engine.runtimes.upstream.upstream import Upstream


class Answered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A whole answer."""

    outputs: dict[str, Any]
    upstream_s: float
    """Spent in the upstream and waiting for it, with failed attempts and the pauses between."""


class Piece(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A chunk of an answer."""

    outputs: dict[str, Any]
    is_followed: bool
    """The next one, or the failure in its place, comes without waiting."""


class Client:
    """One version's upstream. To be made in the event loop that uses it."""

    def __init__(
        self,
        config: UpstreamConfig,
        settings: RuntimeSettings,
        *,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        keys = Keys(environment, allowed=settings.upstream_keys)
        self.upstream = Upstream(config, keys=keys, random=Random())  # noqa: S311 - spreads pauses

    async def infer(
        self,
        inputs: Any,
        parameters: Mapping[str, Any],
        *,
        request_id: str = "",
        timeout_s: float | None = None,
    ) -> Answered:
        """The outputs. Raises RuntimeFailed."""
        call = call_of(inputs, parameters, request_id=request_id, timeout_s=timeout_s)
        try:
            answer = await self.upstream.answer(call)
            outputs = document_in(answer.body)
        except UpstreamFailed as failure:
            raise runtime_failure(failure) from failure
        return Answered(outputs=outputs, upstream_s=answer.upstream_s)

    async def stream(
        self,
        inputs: Any,
        parameters: Mapping[str, Any],
        *,
        request_id: str = "",
        patience_s: float | None = None,
    ) -> AsyncGenerator[Piece, None]:
        """The chunks; closing it closes the upstream's connection. Raises RuntimeFailed."""
        call = call_of(inputs, parameters, request_id=request_id, patience_s=patience_s)
        if call.kind == "embeddings":
            raise RequestRefused("stream", "embeddings come whole")
        try:
            async with self.upstream.stream(call) as stream:
                async for chunk in stream:
                    yield Piece(outputs=document_in(chunk.data), is_followed=stream.is_followed)
        except UpstreamFailed as failure:
            raise runtime_failure(failure) from failure

    async def close(self) -> None:
        """Requests in flight fail with VersionUnavailable. Does nothing the second time."""
        await self.upstream.close()

"""What the HTTP layer asks of the data plane, as Protocols."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypedDict, Unpack

from events.event import Position


class Asking(TypedDict):
    """One request, as keyword arguments."""

    endpoint: str
    inputs: Any
    key: str | None
    """The routing key, if the client gave one."""
    attributes: Mapping[str, str]
    """For rules that look at the request."""
    parameters: dict[str, Any]
    request_id: str
    deadline_s: float
    """For the answer; of a stream for its first chunk, and for each after the one before."""


class Proof(Protocol):
    """Who answered a request, and why."""

    @property
    def version(self) -> str: ...

    @property
    def position(self) -> Position: ...

    @property
    def receipt(self) -> str: ...

    @property
    def rule(self) -> str | None: ...

    @property
    def overhead_ms(self) -> float:
        """Spent outside the version; of a stream until its first chunk."""
        ...

    @property
    def attempts(self) -> int: ...

    @property
    def request_id(self) -> str: ...


class Inference(Proof, Protocol):
    """One answered inference request and the proof of its route."""

    @property
    def outputs(self) -> Any: ...


class StreamedChunks(Protocol):
    """Of the outputs, see `engine.runtimes.documents`; of a version that does not stream, its
    outputs as the only one. Raises as `Inferences.infer`: nothing is repeated any more."""

    @property
    def is_followed(self) -> bool:
        """After the chunk that was read last, the next one, or the failure in its place, is known
        to come without waiting."""
        ...

    def __aiter__(self) -> AsyncIterator[Any]: ...


class StreamedInference(Proof, Protocol):
    """An answer that has begun, and the proof of its route."""

    @property
    def chunks(self) -> StreamedChunks: ...


class Inferences(Protocol):
    """The data plane's entry."""

    async def infer(self, tenant: str, **asking: Unpack[Asking]) -> Inference:
        """Raises exceptions whose `code` is `not_found`, `invalid`, `runtime_failed`,
        `unavailable`, `overloaded` or `timeout`. Cancelling it ends the work."""
        ...

    def stream(
        self, tenant: str, **asking: Unpack[Asking]
    ) -> AbstractAsyncContextManager[StreamedInference]:
        """Entered when the first chunk has arrived; raises as `infer` until then. Leaving it ends
        the work."""
        ...

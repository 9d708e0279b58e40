"""How a request reaches a node: the wire of `inf.<tenant>.<model>.<version>` and its errors."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, ClassVar, Final, Protocol

import msgspec

from events.bus import Bus
from events.catalogue.nodes import VersionRef
from events.errors import LogUnavailable, NoResponders, RemoteFailure, RequestTimeout

QUEUE: Final = "nodes"
UNEXPECTED: Final = "internal"
"""The code of what fails for no reason that the contract knows."""


class InferenceFailed(Exception):
    """An inference request that got no answer; `code` is the contract's problem code."""

    code: ClassVar[str]
    version: str = ""
    """The one the policy had chosen, as far as the gateway got."""


class VersionFailed(InferenceFailed):
    """The version itself failed: asking another replica would not help."""

    code = "runtime_failed"


class NotServed(InferenceFailed):
    """No node serves the version just now, or the one that was asked has too much to do. Nothing
    was executed: asking again is safe."""

    code = "unavailable"


class DeadlineExceeded(InferenceFailed):
    code = "timeout"


class RequestRefused(InferenceFailed):
    """The version refuses the request itself, for a reason that lies in the request."""

    code = "invalid"

    def __init__(self, detail: str, *, field: str = "inputs") -> None:
        super().__init__(detail)
        self.fields = {field: detail}


class VersionOverloaded(InferenceFailed):
    """The version has as much to do as it may have."""

    code = "overloaded"

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class VersionUnavailable(InferenceFailed):
    """What the version runs on cannot be reached: asking another replica would not help."""

    code = "unavailable"


class EndpointUnknown(InferenceFailed):
    code = "not_found"


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a version."""

    inputs: Any
    parameters: dict[str, Any]
    timeout_s: float
    """For the answer; of a stream for its first chunk, and for each after the one before."""
    request_id: str = ""


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    outputs: Any
    runtime_ms: float
    """Spent inside the version."""


class Executor(Protocol):
    """Whatever can execute a request: this process's node, or the bus."""

    async def execute(self, ref: VersionRef, execution: Execution) -> Executed:
        """Raises InferenceFailed."""
        ...

    def stream(self, ref: VersionRef, execution: Execution) -> AsyncGenerator[Any, None]:
        """The chunks of the outputs, one for a version that has none. Raises InferenceFailed.

        Closing it ends the work.
        """
        ...


encode_execution = msgspec.msgpack.Encoder().encode
decode_execution = msgspec.msgpack.Decoder(Execution).decode
encode_executed = msgspec.msgpack.Encoder().encode
decode_executed = msgspec.msgpack.Decoder(Executed).decode


def subject_of(ref: VersionRef) -> str:
    """Versions hold dots, which would make tokens; `_` never stands in a semantic version."""
    return f"inf.{ref.tenant}.{ref.model}.{ref.version.replace('.', '_')}"


class BusExecutor:
    """Executes on any node that serves the version."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def execute(self, ref: VersionRef, execution: Execution) -> Executed:
        subject = subject_of(ref)
        try:
            reply = await self._bus.request(
                subject, encode_execution(execution), timeout_s=execution.timeout_s
            )
        except (NoResponders, LogUnavailable) as error:
            raise NotServed(f"no node serves {ref}") from error
        except RequestTimeout as error:
            raise DeadlineExceeded(f"{ref} did not answer in {execution.timeout_s} s") from error
        except RemoteFailure as error:
            raise _failure(error) from error
        return decode_executed(reply)


def _failure(error: RemoteFailure) -> InferenceFailed:
    if error.code == "overloaded":  # said by the bus, before the node heard of the request
        return NotServed(error.detail)
    for kind in (NotServed, DeadlineExceeded):
        if error.code == kind.code:
            return kind(error.detail)
    return VersionFailed(error.detail)

"""How a request reaches a node: the wire of `inf.<tenant>.<model>.<version>` and its errors."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, ClassVar, Final, Protocol

import msgspec

from engine import runtimes
from events.bus import Bus
from events.catalogue.nodes import VersionRef
from events.errors import (
    LogError,
    LogUnavailable,
    NoResponders,
    ReaderTooSlow,
    RemoteFailure,
    RequestTimeout,
    ServerDied,
)

QUEUE: Final = "nodes"
_BY_THE_BUS: Final = ("overloaded", "unavailable")
"""Said of a node that has too much to do, or that stops: not by its version."""
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


class NodeDied(NotServed):
    """The node that had the request has died over it. What it had done is lost with it: asking
    again is as safe as the first time."""


class DeadlineExceeded(InferenceFailed):
    code = "timeout"


class RequestTimedOut(InferenceFailed):
    """The time that the request itself allowed has passed, which says nothing about the version.
    Nobody waits for another one's answer."""

    code = "timeout"


class RequestRefused(InferenceFailed):
    """The version refuses the request itself, for a reason that lies in the request."""

    code = "invalid"

    def __init__(
        self, detail: str, *, field: str = "inputs", openai_code: str | None = None
    ) -> None:
        super().__init__(detail)
        self.fields = {field: detail}
        self.openai_code = openai_code
        """What OpenAI's protocol calls it, if it has a name for it."""


class VersionOverloaded(InferenceFailed):
    """The version has as much to do as it may have."""

    code = "overloaded"

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class VersionUnavailable(InferenceFailed):
    """What the version runs on cannot be reached: asking another replica would not help."""

    code = "unavailable"

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class EndpointUnknown(InferenceFailed):
    code = "not_found"


class Execution(msgspec.Struct, frozen=True, kw_only=True):
    """One request to a version."""

    inputs: Any
    parameters: dict[str, Any]
    timeout_s: float
    """For the answer; of a stream for its first chunk, and for each after the one before."""
    request_id: str = ""


class Executed(msgspec.Struct, frozen=True, kw_only=True, tag="executed"):
    outputs: Any
    runtime_ms: float
    """Spent inside the version."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="chunk"):
    """A piece of the outputs; the only one of a version that does not stream."""

    outputs: Any
    runtime_ms: float
    """Spent inside the version since it was asked."""
    is_followed: bool = False
    """The next one, or the failure in its place, is known to come without waiting."""


class Failed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag="failed"):
    """An InferenceFailed, on the wire."""

    kind: str
    detail: str
    field: str = ""
    openai_code: str | None = None
    retry_after_s: float | None = None


class Executor(Protocol):
    """Whatever can execute a request: this process's node, or the bus."""

    async def execute(self, ref: VersionRef, execution: Execution) -> Executed:
        """Raises InferenceFailed."""
        ...

    def stream(self, ref: VersionRef, execution: Execution) -> AsyncGenerator[Chunk, None]:
        """The outputs piece by piece. Raises InferenceFailed.

        Closing it ends the work.
        """
        ...


encode_execution = msgspec.msgpack.Encoder().encode
decode_execution = msgspec.msgpack.Decoder(Execution).decode
encode_reply = msgspec.msgpack.Encoder().encode
_decode_reply = msgspec.msgpack.Decoder[Executed | Chunk | Failed](Executed | Chunk | Failed).decode


def subject_of(ref: VersionRef) -> str:
    """Versions hold dots, which would make tokens; `_` never stands in a semantic version."""
    return f"inf.{ref.tenant}.{ref.model}.{ref.version.replace('.', '_')}"


def stream_subject_of(ref: VersionRef) -> str:
    """Where chunks are asked for."""
    return f"{subject_of(ref)}.stream"


def cancel_subject_of(ref: VersionRef) -> str:
    """Where it is told that nobody waits for a request any more, by its id."""
    return f"{subject_of(ref)}.cancel"


class BusExecutor:
    """Executes on any node that serves the version."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def execute(self, ref: VersionRef, execution: Execution) -> Executed:
        payload = encode_execution(execution)
        try:
            with _failures(ref, execution):
                reply = await self._bus.request(
                    subject_of(ref), payload, timeout_s=execution.timeout_s
                )
        except (asyncio.CancelledError, NodeDied):  # it may only have stood still
            with contextlib.suppress(LogError):
                await self._bus.publish(cancel_subject_of(ref), execution.request_id.encode())
            raise
        executed = _decode_reply(reply)
        if isinstance(executed, Failed):
            raise _raised(executed)
        assert isinstance(executed, Executed)
        return executed

    async def stream(self, ref: VersionRef, execution: Execution) -> AsyncGenerator[Chunk, None]:
        replies = self._bus.stream(
            stream_subject_of(ref), encode_execution(execution), timeout_s=execution.timeout_s
        )
        with _failures(ref, execution):
            async with aclosing(replies):
                async for reply in replies:
                    chunk = _decode_reply(reply)
                    if isinstance(chunk, Failed):
                        raise _raised(chunk)
                    assert isinstance(chunk, Chunk)
                    yield chunk


def failure_of(failure: runtimes.RuntimeFailed) -> InferenceFailed:
    """What a runtime said, as the gateway understands it."""
    match failure:
        case runtimes.RequestRefused():
            return RequestRefused(
                failure.detail, field=failure.field, openai_code=failure.openai_code
            )
        case runtimes.VersionOverloaded():
            return VersionOverloaded(failure.detail, retry_after_s=failure.retry_after_s)
        case runtimes.VersionUnavailable():
            return VersionUnavailable(failure.detail, retry_after_s=failure.retry_after_s)
        case runtimes.RequestTimedOut():
            return RequestTimedOut(failure.detail)
        case runtimes.VersionTimedOut():
            return DeadlineExceeded(failure.detail)
        case _:
            return VersionFailed(failure.detail)


def failed(failure: InferenceFailed) -> Failed:
    """For `BusExecutor` to raise where it was asked."""
    fields: Mapping[str, str] = getattr(failure, "fields", {})
    return Failed(
        kind=type(failure).__name__,
        detail=str(failure),
        field=next(iter(fields), ""),
        openai_code=getattr(failure, "openai_code", None),
        retry_after_s=getattr(failure, "retry_after_s", None),
    )


def _raised(failure: Failed) -> InferenceFailed:
    match failure.kind:
        case "RequestRefused":
            return RequestRefused(
                failure.detail, field=failure.field, openai_code=failure.openai_code
            )
        case "VersionOverloaded":
            return VersionOverloaded(failure.detail, retry_after_s=failure.retry_after_s)
        case "VersionUnavailable":
            return VersionUnavailable(failure.detail, retry_after_s=failure.retry_after_s)
        case _:
            kinds = (NotServed, DeadlineExceeded, RequestTimedOut)
            found = (kind for kind in kinds if kind.__name__ == failure.kind)
            return next(found, VersionFailed)(failure.detail)


@contextmanager
def _failures(ref: VersionRef, execution: Execution) -> Iterator[None]:
    """Raises InferenceFailed for what the bus raises."""
    try:
        yield
    except (NoResponders, LogUnavailable) as error:
        raise NotServed(f"no node serves {ref}") from error
    except ReaderTooSlow as error:  # who asked is at fault, not the version
        raise RequestTimedOut("the answer was read too slowly") from error
    except ServerDied as error:
        raise NodeDied(f"the node that was asked for {ref} has died") from error
    except RequestTimeout as error:
        raise DeadlineExceeded(f"{ref} did not answer in {execution.timeout_s} s") from error
    except RemoteFailure as error:
        if error.code in _BY_THE_BUS:
            raise NotServed(error.detail) from error
        raise VersionFailed(error.detail) from error

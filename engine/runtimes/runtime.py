"""The runtime port: what executes one version on one node."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Final,
    Literal,
    Protocol,
    TypeAlias,
    runtime_checkable,
)

import msgspec

if TYPE_CHECKING:
    from engine.batching import Statistics

UPSTREAM_KEYS: Final = ("*_API_KEY",)
"""The environment variables that upstreams' keys may be in, unless an operator says otherwise."""

LoadFailure: TypeAlias = Literal["artifact", "digest", "runtime", "memory", "timeout"]
"""As in the event VersionLoadFailed."""


class RuntimeFailed(Exception):
    """The version itself failed: its code, its process, or what it answered. Not the platform."""

    code: ClassVar[str] = "runtime_failed"
    """The contract's problem code."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class RequestRefused(RuntimeFailed):
    """The request is at fault: any other version might refuse it too, this one always will."""

    code = "invalid"

    def __init__(self, field: str, detail: str, *, openai_code: str | None = None) -> None:
        super().__init__(detail)
        self.field = field
        """The member of the inputs or the parameters."""
        self.openai_code = openai_code
        """What OpenAI's protocol calls it, if it has a name for it."""


class VersionOverloaded(RuntimeFailed):
    """It has as much to do as it may have. Nothing was computed."""

    code = "overloaded"

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class VersionUnavailable(RuntimeFailed):
    """What the version runs on cannot be reached, or has been given up for a while."""

    code = "unavailable"

    def __init__(self, detail: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class VersionTimedOut(RuntimeFailed):
    """A time limit of the version itself has passed."""

    code = "timeout"


class RequestTimedOut(RuntimeFailed):
    """The time that the request itself allowed has passed. No fault of the version: a request may
    allow less than any version needs."""

    code = "timeout"


class LoadFailed(Exception):
    """The version cannot be made ready on this node."""

    def __init__(self, reason: LoadFailure, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason: LoadFailure = reason
        self.detail = detail


class RuntimeSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What this node allows to versions."""

    artifact_roots: tuple[Path, ...] = ()
    """Folders that `file:///` artifacts may lie in."""
    python_enabled: bool = False
    """May versions bring code that is executed here?"""
    python_memory_bytes_max: int = 2 * 2**30
    """Writable memory of one python version's process."""
    python_files_max: int = 256
    """Files and sockets such a process may have open."""
    python_file_bytes_max: int = 64 * 2**20
    """The largest file it may write."""
    python_frame_bytes_max: int = 64 * 2**20
    """The largest request and the largest answer, encoded."""
    python_close_seconds: float = 2.0
    """Grace of such a process at closing, before it is killed."""
    upstream_keys: tuple[str, ...] = UPSTREAM_KEYS
    """Patterns of the environment variables that versions may name as their upstream's key."""


class Runtime(Protocol):
    """One loaded version. Methods other than `infer` are called by one owner, in this order:
    `load`, `warm`, then `close`, which may also come early."""

    async def load(self) -> None:
        """Make it answer. Raises LoadFailed; close it then too."""
        ...

    async def warm(self) -> None:
        """Make its first answer as fast as the later ones. Raises LoadFailed."""
        ...

    async def infer(self, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        """The outputs, as JSON can hold them. Concurrent calls are fine. Raises RuntimeFailed.

        Cancelling it ends the work.
        """
        ...

    async def memory_bytes(self) -> int:
        """What it takes now, measured."""
        ...

    async def failed(self) -> str:
        """Returns, with the reason, once the version can never answer again; until then waits."""
        ...

    async def close(self) -> None:
        """Free everything. Requests in flight get RuntimeFailed. Does nothing the second time."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """A runtime whose answers come piece by piece."""

    def stream(self, inputs: Any, parameters: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        """Chunks of the outputs, see `engine.runtimes.documents`. Raises RuntimeFailed.

        Closing it ends the work.
        """
        ...


@runtime_checkable
class Batching(Protocol):
    """A runtime that computes requests in batches."""

    async def statistics(self) -> Statistics:
        """Of its scheduler, as it is now. Raises RuntimeFailed."""
        ...

"""What the `config` of a version may hold, by runtime. Pure: commands check versions by these.

`msgspec.convert(config, EchoConfig)` checks and names the offending member in its error.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

Milliseconds = Annotated[float, Meta(ge=0, le=3_600_000)]
Fraction = Annotated[float, Meta(ge=0, le=1)]


class EchoConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A version for rehearsals: answers what it is told to, as slowly and badly as it is told to.

    Latencies and failures are drawn from a generator seeded with `seed`: the n-th request that
    reaches a loaded version always meets the same fate.
    """

    answer: Any = None
    """The `answer` member of every output."""
    latency_ms: Milliseconds = 0.0
    """Every request takes at least this long."""
    jitter_ms: Milliseconds = 0.0
    """And up to this much longer, evenly distributed."""
    error_rate: Fraction = 0.0
    """The share of requests that fail."""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    load_ms: Milliseconds = 0.0
    """How long loading takes; beyond every time-out it is a version that never becomes ready."""
    load_error: str | None = None
    """Loading fails with this, after `load_ms`."""
    ballast_bytes: Annotated[int, Meta(ge=0, le=2**30)] = 0
    """Memory that is really taken while the version is loaded."""


class PythonConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """User code out of the version's artifact, see `engine.runtimes.python`."""

    factory: Annotated[
        str, Meta(pattern=r"\A[A-Za-z_][\w.]{0,199}:[A-Za-z_][\w.]{0,199}\Z", max_length=401)
    ]
    """`module:callable`; called once with the artifact's directory."""
    concurrency: Annotated[int, Meta(ge=1, le=64)] = 1
    """Requests computed at the same time, in threads; above 1 the code must be thread-safe."""

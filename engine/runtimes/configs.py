"""What the `config` of a version may hold, by runtime. Pure: commands check versions by these.

`msgspec.convert(config, EchoConfig)` checks and names the offending member in its error.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from engine.batching.limits import Limits

TEMPERATURE_MAX: Final = 2.0

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


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a language version is told to do badly, once it has warmed up."""

    failing_steps: Annotated[int, Meta(ge=0, le=1_000_000)] = 0
    """So many executions fail, then none does."""
    failing_text: Annotated[str, Meta(min_length=1, max_length=256)] | None = None
    """Every execution fails that computes a request whose prompt holds this."""
    step_ms: Annotated[float, Meta(ge=0, le=1_000)] = 0.0
    """Every execution takes this much longer."""


class LanguageConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A language model of the version's artifact. Raises ValueError, naming the field, if fields do
    not go together."""

    temperature: Annotated[float, Meta(ge=0, le=TEMPERATURE_MAX)] = 0.0
    """Of requests that name none. OpenAI's is 1; a model of plain facts tells the likeliest."""
    max_tokens: Annotated[int, Meta(ge=1, le=2**20)] = 256
    """Of answers in a chat whose request names no number; fewer if there is less room."""
    max_tokens_limit: Annotated[int, Meta(ge=1, le=2**20)] = 4_096
    """No request may ask for more."""
    choices_max: Annotated[int, Meta(ge=1, le=1_024)] = 128
    """Texts that one request may ask for: its prompts times `n`. Never more than may wait."""
    prompt_chars_max: Annotated[int, Meta(ge=1, le=2**24)] = 2**20
    """Of all prompts of one request; 2^20 take a second to be cut into tokens."""
    kv_bytes: Annotated[int, Meta(ge=2**16, le=2**40)] = 64 * 2**20
    """Keys and values of all requests; taken at once."""
    batch_max: Annotated[int, Meta(ge=1, le=1_024)] = 64
    step_tokens_max: Annotated[int, Meta(ge=1, le=2**16)] = 512
    prefill_tokens_max: Annotated[int, Meta(ge=1, le=2**16)] = 128
    waiting_max: Annotated[int, Meta(ge=1, le=2**16)] = 1_024
    ageing_seconds: Annotated[float, Meta(gt=0, le=3_600)] = 10.0
    """This and those above: see `engine.batching.limits`."""
    rehearsal: Rehearsal | None = None

    def __post_init__(self) -> None:
        self.limits()

    def limits(self) -> Limits:
        return Limits(
            batch_max=self.batch_max,
            step_tokens_max=self.step_tokens_max,
            prefill_tokens_max=self.prefill_tokens_max,
            waiting_max=self.waiting_max,
            ageing_seconds=self.ageing_seconds,
            kv_bytes_max=self.kv_bytes,
        )

"""What one scheduler may do, and how far waiting counts."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Raises ValueError, naming the field, if no step could keep them."""

    batch_max: int = 64
    """Requests in a step. Throughput of the built-in model is flat from 8, latency is not."""
    step_tokens_max: int = 512
    """In a step. Every running request gets one of them, prompts share what is left."""
    prefill_tokens_max: int = 128
    """Of one request's prompt in a step, so that a long one does not hold up the others."""
    long_prefills_max: int = 2
    """Requests at a time that need several steps for their prompt."""
    waiting_max: int = 1024
    """Requests that have not begun. Preempted ones come on top: they were promised to be served."""
    ageing_seconds: float = 10.0
    """Waiting that makes up for one class of priority."""
    skip_ahead_max: int = 8
    """Waiting requests that are looked at in a step beyond the first that does not fit."""
    passes_max: int = 16
    """Requests that may go before one that does not fit. Then it is next, and blocks are saved."""
    watermark: float = 0.01
    """Share of the blocks that an admission leaves free, if that is more than one for each request
    that runs."""
    retries_max: int = 2
    """Of a batch that failed, before the request is sought that makes it fail."""
    kv_bytes_max: int | None = None
    """Of keys and values. None: all that the executor has."""

    def __post_init__(self) -> None:
        for field in ("batch_max", "prefill_tokens_max", "long_prefills_max", "ageing_seconds"):
            if getattr(self, field) <= 0:
                raise ValueError(f"{field}: {getattr(self, field)} is not more than 0")
        for field in ("waiting_max", "skip_ahead_max", "passes_max", "retries_max"):
            if getattr(self, field) < 0:
                raise ValueError(f"{field}: {getattr(self, field)} is less than 0")
        if self.step_tokens_max < self.batch_max:
            raise ValueError(f"step_tokens_max: {self.step_tokens_max} is less than batch_max")
        if not 0 <= self.watermark < 1:
            raise ValueError(f"watermark: {self.watermark} is not a share below 1")

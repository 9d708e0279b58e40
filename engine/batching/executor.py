"""The ports of the scheduler: what computes a batch, what draws tokens, and what spells them.

A batch is flat: one list of tokens, request after request, and parallel lists that hold one item
for each request. That is what an array needs, and objects for each row would cost more than the
whole scheduling of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ExecutorFailed(Exception):
    """This batch was not computed. The same batch, or a part of it, may be tried again."""

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class ExecutorLost(ExecutorFailed):
    """Nothing will be computed any more: the process is gone."""


class Batch(msgspec.Struct, frozen=True):
    """The tokens that one step computes.

    Request i brings `counts[i]` tokens, which stand at positions `starts[i]`, `starts[i] + 1` and
    so on of its text. The key and value of position p belong into block
    `tables[i][p // block_tokens]`, at place `p % block_tokens`. A block may stand in several
    tables, but is written for one request only.
    The lists belong to the scheduler: neither change them nor keep them after the step.
    """

    requests: Sequence[int]
    """Numbers of the requests; a number is never used again."""
    tokens: Sequence[int]
    """Of all requests, one after another."""
    starts: Sequence[int]
    counts: Sequence[int]
    """At least 1 each."""
    tables: Sequence[Sequence[int]]
    """Blocks of each request, at least as many as its tokens need up to the end of this step."""
    sampled: Sequence[int]
    """Indices of requests whose last token in this batch wants a successor, ascending."""
    sampling: Sequence[Any]
    """Of each request in `sampled`, what its caller gave to draw tokens by."""

    def part(self, begin: int, end: int) -> Batch:
        """The requests from `begin` to before `end` alone."""
        first = sum(self.counts[:begin])
        last = first + sum(self.counts[begin:end])
        kept = [i for i, index in enumerate(self.sampled) if begin <= index < end]
        return Batch(
            self.requests[begin:end],
            self.tokens[first:last],
            self.starts[begin:end],
            self.counts[begin:end],
            self.tables[begin:end],
            [self.sampled[i] - begin for i in kept],
            [self.sampling[i] for i in kept],
        )


class Drawn(msgspec.Struct, frozen=True):
    """What came out of a batch: one item for each request in `sampled`, in that order."""

    tokens: Sequence[int]
    details: Sequence[Any] | None = None
    """What the runtime tells of each token besides, such as log probabilities; passed through."""


class Executor(Protocol):
    """Computes batches. Called by one scheduler, one batch at a time.

    Computing a batch again must give the same: keys and values are overwritten, and a draw depends
    on logits, parameters and position only, not on what was drawn before or beside it. Retries,
    and requests that are computed again after a preemption, rest on that.
    """

    @property
    def block_tokens(self) -> int:
        """Positions in a block of keys and values."""
        ...

    @property
    def block_bytes(self) -> int:
        """Of one block, all layers."""
        ...

    @property
    def blocks(self) -> int:
        """How many there are, numbered from 0."""
        ...

    @property
    def context_tokens(self) -> int:
        """The longest text, prompt and answer together."""
        ...

    @property
    def eos(self) -> int | None:
        """The token that ends an answer."""
        ...

    def execute(self, batch: Batch) -> Drawn:
        """Raises ExecutorFailed or ExecutorLost; anything else counts as ExecutorFailed."""
        ...


class Sampler(Protocol):
    """Draws tokens, for executors that compute logits."""

    def __call__(
        self, logits: NDArray[np.float32], sampling: Sequence[Any], positions: Sequence[int]
    ) -> Drawn:
        """One token for each row of `logits` (requests, vocabulary), to stand at its position."""
        ...


class TokenBytes(Protocol):
    """The detokenizer: what a token stands for in UTF-8. A token may be a part of a character."""

    def __call__(self, token: int) -> bytes:
        """Raises LookupError or ValueError for what is no token."""
        ...

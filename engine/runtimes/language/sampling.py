"""Drawing tokens from logits.

A draw depends on the logits, the sampling and the position, on nothing else: not on the batch, not
on what was drawn before. So the same seed gives the same text whatever runs beside it, and a
request that is computed again draws again what it drew.

Not guaranteed: that logits are the same bits in every batch. They differ by about 2e-5, as sums are
taken in another order, so of some hundred thousand draws one may fall to the neighbouring token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from engine.batching.executor import Drawn
from engine.runtimes.language.tokenizer import END

TOP_LOGPROBS_MAX: Final = 20


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a caller wants tokens to be drawn. Filters apply in this order."""

    temperature: Annotated[float, Meta(ge=0, le=2)] = 0.0
    """0 takes the most likely token; of equally likely ones the lowest."""
    top_k: Annotated[int, Meta(ge=0)] = 0
    """Only the k most likely tokens; 0 for all."""
    top_p: Annotated[float, Meta(gt=0, le=1)] = 1.0
    """Only the most likely tokens that together have this probability, at least one."""
    seed: Annotated[int, Meta(ge=0, le=2**63 - 1)] = 0
    """Callers that want a different text each time bring a different seed each time."""
    logprobs: Annotated[int, Meta(ge=0, le=TOP_LOGPROBS_MAX)] | None = None
    """Tell the log probability of the token, and of this many most likely ones."""
    ignore_eos: bool = False
    """Never draw the end of a text: the answer has as many tokens as it may have."""


GREEDY: Final = Sampling()


class Logprobs(msgspec.Struct, frozen=True):
    """Of one drawn token, by the model's own distribution: before temperature and filters, and with
    the end of the text in it."""

    chosen: float
    top: tuple[tuple[int, float], ...]
    """(token, log probability), the most likely first."""


class TokenSampler:
    """The sampler of the language models, for any executor that computes logits."""

    def __call__(
        self,
        logits: NDArray[np.float32],
        sampling: Sequence[Sampling | None],
        positions: Sequence[int],
    ) -> Drawn:
        """One token for each row of `logits`; without a sampling, as GREEDY."""
        wishes = [wanted or GREEDY for wanted in sampling]
        allowed = _without_end(logits, wishes)
        tokens: list[int] = allowed.argmax(axis=1).tolist()
        for row, (wanted, position) in enumerate(zip(wishes, positions, strict=True)):
            if wanted.temperature > 0:
                tokens[row] = _drawn(allowed[row], wanted, position)
        if all(wanted.logprobs is None for wanted in wishes):
            return Drawn(tokens)
        return Drawn(
            tokens,
            [
                None if wanted.logprobs is None else _logprobs(row, token, wanted.logprobs)
                for row, token, wanted in zip(logits, tokens, wishes, strict=True)
            ],
        )


def _without_end(logits: NDArray[np.float32], wishes: Sequence[Sampling]) -> NDArray[np.float32]:
    endless = [row for row, wanted in enumerate(wishes) if wanted.ignore_eos]
    if not endless:
        return logits
    allowed = logits.copy()
    allowed[endless, END] = -np.inf
    return allowed


def _drawn(logits: NDArray[np.float32], wanted: Sampling, position: int) -> int:
    # Stable, so that tokens of one logit keep their order whatever sorts them.
    order = np.argsort(-logits, kind="stable")
    if wanted.top_k:
        order = order[: wanted.top_k]
    scaled = (logits[order].astype(np.float64) - float(logits[order[0]])) / wanted.temperature
    shares = np.exp(scaled)
    reached = np.cumsum(shares)
    if wanted.top_p < 1:
        kept = int(np.searchsorted(reached, wanted.top_p * reached[-1])) + 1
        order, reached = order[:kept], reached[:kept]
    luck = uniform(seed=wanted.seed, position=position) * reached[-1]
    # Rounding may lift luck to the very end.
    index = min(int(np.searchsorted(reached, luck, side="right")), len(order) - 1)
    return int(order[index])


def uniform(*, seed: int, position: int) -> float:
    """A number from 0 to below 1 that is fixed by both: Philox with the seed as its key and the
    position as its counter, so that none depends on how many were drawn before."""
    generator = np.random.Philox(key=seed, counter=position)
    return float(int(generator.random_raw()) >> 11) * 2.0**-53


def _logprobs(logits: NDArray[np.float32], token: int, top: int) -> Logprobs:
    exact = logits.astype(np.float64)
    peak = exact.max()
    known = exact - (peak + np.log(np.exp(exact - peak).sum()))
    order = np.argsort(-logits, kind="stable")[:top]
    return Logprobs(
        float(known[token]), tuple((int(index), float(known[index])) for index in order)
    )

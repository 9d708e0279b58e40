"""The executor of the language models: computes batches with NumPy, in the thread that calls.

Give it a process of its own, and the arithmetic library one thread (`OPENBLAS_NUM_THREADS=1`): a
second buys nothing for matrices this small, and beside a busy event loop every step waits for the
interpreter.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from engine.batching.executor import Batch, Drawn, ExecutorFailed, Sampler
from engine.runtimes.language.decoder import Decoder, empty_cache
from engine.runtimes.language.layout import layout
from engine.runtimes.language.sampling import TokenSampler
from engine.runtimes.language.tokenizer import END
from engine.runtimes.language.weights import LanguageModel

BLOCK_TOKENS: Final = 16
DRAW: Final = TokenSampler()


class LanguageExecutor:
    """An `engine.batching.executor.Executor`. Takes `blocks * block_bytes` of memory at once."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        blocks: int,
        block_tokens: int = BLOCK_TOKENS,
        sampler: Sampler = DRAW,
    ) -> None:
        self._config = model.config
        self._decoder = Decoder(model)
        self._cache = empty_cache(model.config, blocks=blocks, block_tokens=block_tokens)
        self._sampler = sampler

    @property
    def block_tokens(self) -> int:
        return self._cache.block_tokens

    @property
    def block_bytes(self) -> int:
        return self._cache.block_bytes

    @property
    def blocks(self) -> int:
        return self._cache.blocks

    @property
    def context_tokens(self) -> int:
        return self._config.context_tokens

    @property
    def eos(self) -> int | None:
        return END

    def execute(self, batch: Batch) -> Drawn:
        """Raises ExecutorFailed for a batch that cannot be right, before anything is written."""
        if not batch.counts:
            return Drawn([])
        self._check(batch)
        arranged = layout(batch, block_tokens=self.block_tokens, heads=self._config.heads)
        logits = self._decoder.logits(self._cache, arranged)
        if not np.isfinite(logits).all():
            raise ExecutorFailed("logits that are not finite")
        return self._sampler(
            logits, batch.sampling, (arranged.positions[arranged.last] + 1).tolist()
        )

    def _check(self, batch: Batch) -> None:
        if min(batch.counts) < 1 or sum(batch.counts) != len(batch.tokens):
            raise ExecutorFailed("counts and tokens do not agree")
        if not 0 <= min(batch.tokens) <= max(batch.tokens) < self._config.vocabulary:
            raise ExecutorFailed("a token that is none")
        for start, count, table in zip(batch.starts, batch.counts, batch.tables, strict=True):
            if start < 0 or start + count > self.context_tokens:
                raise ExecutorFailed(f"position beyond {self.context_tokens}")
            if len(table) * self.block_tokens < start + count:
                raise ExecutorFailed("fewer blocks than positions")
            if not 0 <= min(table) <= max(table) < self.blocks:
                raise ExecutorFailed("a block that is none")

"""How a batch lies in arrays: which row stands where, and which requests attend together.

Every row is a token. What works on rows alone (norms, matrices, positions) takes all of them at
once, prompts and answers alike. Attention takes requests together that bring equally many tokens
and have about equally many blocks, so that little is computed for padding.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.batching.executor import Batch
from engine.runtimes.language.kv_cache import padded_tables

ATTENTION_SCORES_MAX = 2**21
"""In one piece, over all heads: 8 MiB of them. More would leave the processor's cache."""


class Piece(msgspec.Struct, frozen=True):
    """Rows that attend together."""

    rows: NDArray[np.int64]
    """(requests, tokens of each)."""
    tables: NDArray[np.int64]
    """(requests, blocks of each)."""
    hidden: NDArray[np.bool_]
    """(requests, tokens, 1, positions): what comes later in the text, or is padding."""


class Layout(msgspec.Struct, frozen=True):
    """A batch in arrays."""

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    places: NDArray[np.int64]
    """Where each row's key and value go."""
    pieces: list[Piece]
    last: NDArray[np.int64]
    """The rows whose successor is wanted."""


def layout(batch: Batch, *, block_tokens: int, heads: int) -> Layout:
    """Raises nothing; the batch has been checked."""
    counts = np.asarray(batch.counts, dtype=np.int64)
    starts = np.asarray(batch.starts, dtype=np.int64)
    ends = np.cumsum(counts)
    rows = np.arange(ends[-1])
    positions = rows + np.repeat(starts - ends + counts, counts)
    used = -(-(starts + counts) // block_tokens)
    tables = padded_tables(batch.tables, int(used.max()))
    owners = np.repeat(np.arange(len(counts)), counts)
    blocks = tables[owners, positions // block_tokens]
    return Layout(
        tokens=np.asarray(batch.tokens, dtype=np.int64),
        positions=positions,
        places=blocks * block_tokens + positions % block_tokens,
        pieces=[
            _piece(cut, (ends - counts)[cut.requests], positions, tables, block_tokens)
            for cut in _cuts(counts, used, block_tokens, heads)
        ],
        last=ends[np.asarray(batch.sampled, dtype=np.int64)] - 1,
    )


class _Cut(msgspec.Struct, frozen=True):
    """So many tokens of each of these requests, from the same one on."""

    requests: list[int]
    first: int
    count: int
    blocks: int
    """What the longest of them has."""


def _piece(
    cut: _Cut,
    begins: NDArray[np.int64],
    positions: NDArray[np.int64],
    tables: NDArray[np.int64],
    block_tokens: int,
) -> Piece:
    rows = (begins + cut.first)[:, None] + np.arange(cut.count)
    later = np.arange(cut.blocks * block_tokens) > positions[rows][..., None]
    return Piece(rows, tables[cut.requests, : cut.blocks], later[:, :, None, :])


def _cuts(
    counts: NDArray[np.int64], used: NDArray[np.int64], block_tokens: int, heads: int
) -> Iterator[_Cut]:
    """The batch in pieces of at most ATTENTION_SCORES_MAX, or of one row."""
    for (count, width), members in _alike(counts.tolist(), used.tolist()).items():
        row_scores = heads * width * block_tokens
        tokens = max(1, min(count, ATTENTION_SCORES_MAX // row_scores))
        together = max(1, ATTENTION_SCORES_MAX // (tokens * row_scores))
        for begin in range(0, len(members), together):
            kept = members[begin : begin + together]
            blocks = int(used[kept].max())
            for first in range(0, count, tokens):
                yield _Cut(kept, first, min(tokens, count - first), blocks)


def _alike(counts: list[int], used: list[int]) -> dict[tuple[int, int], list[int]]:
    """Requests by (tokens, blocks rounded up to a power of two)."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, (count, blocks) in enumerate(zip(counts, used, strict=True)):
        groups.setdefault((count, 1 << (blocks - 1).bit_length()), []).append(index)
    return groups

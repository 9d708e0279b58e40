"""Keys and values of all requests, in numbered blocks of a fixed number of positions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


class KvCache:
    """One array for all layers. Which request has which block is the scheduler's business."""

    def __init__(self, *, layers: int, blocks: int, block_tokens: int, head_width: int) -> None:
        self._width = head_width
        self.block_tokens = block_tokens
        # Zeros, not garbage: places behind the end of a text are read and then weigh nothing, but
        # nothing times not-a-number would be not-a-number.
        # Written, not only promised, so that what a version takes can be measured at once.
        shape = (layers, blocks, block_tokens, 2 * head_width)
        self._stored = np.full(shape, np.float32(0))
        self._places = self._stored.reshape(layers, blocks * block_tokens, 2 * head_width)

    @property
    def blocks(self) -> int:
        return self._stored.shape[1]

    @property
    def block_bytes(self) -> int:
        """Of one block, all layers."""
        return self._stored.nbytes // self.blocks

    def write(
        self, layer: int, places: NDArray[np.int64], keys_values: NDArray[np.float32]
    ) -> None:
        """Rows of (key, value), side by side; a place is block * block_tokens + offset."""
        self._places[layer][places] = keys_values

    def read(
        self, layer: int, tables: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Keys and values of requests that have equally many blocks: each of shape (requests,
        positions, head_width), copied out of the blocks."""
        requests, blocks = tables.shape
        gathered = self._stored[layer].take(tables, axis=0)
        flat = gathered.reshape(requests, blocks * self.block_tokens, 2 * self._width)
        return flat[..., : self._width], flat[..., self._width :]


def padded_tables(tables: Sequence[Sequence[int]], blocks: int) -> NDArray[np.int64]:
    """The first `blocks` of each table as one array; shorter ones are filled up with block 0."""
    padded = np.zeros((len(tables), blocks), dtype=np.int64)
    for row, table in enumerate(tables):
        used = table[:blocks]
        padded[row, : len(used)] = used
    return padded

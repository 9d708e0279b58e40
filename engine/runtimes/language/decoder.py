"""The network as it serves: a batch of tokens in, logits out, keys and values in the cache.

Gains of norms are multiplied into the matrices behind them once, at the start, and the factor of
the attention scores into the queries: fewer steps for each token, the same function.
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.runtimes.language.config import NORM_EPSILON, ModelConfig
from engine.runtimes.language.kv_cache import KvCache
from engine.runtimes.language.layout import Layout, Piece
from engine.runtimes.language.turning import as_pairs, turns
from engine.runtimes.language.weights import LanguageModel


class _Layer(msgspec.Struct, frozen=True):
    attention_in: NDArray[np.float32]
    """To queries of all heads, key, value."""
    attention_out: NDArray[np.float32]
    hidden_in: NDArray[np.float32]
    hidden_out: NDArray[np.float32]


class Decoder:
    """Computes rows. Not to be called by two threads at once."""

    def __init__(self, model: LanguageModel) -> None:
        self._config = model.config
        self._layers = [_layer(model, index) for index in range(model.config.layers)]
        self._embedding = model.parameters["embedding"]
        self._head = np.ascontiguousarray((self._embedding * model.parameters["norm"]).T)
        self._turns = turns(model.config, model.config.context_tokens).astype(np.complex64)

    def logits(self, cache: KvCache, batch: Layout) -> NDArray[np.float32]:
        """Of the successors of the rows in `batch.last`: (rows, vocabulary)."""
        values = self._embedding[batch.tokens]
        turn = self._turns[batch.positions][:, None, :]
        for index, layer in enumerate(self._layers):
            mixed = _normed(values) @ layer.attention_in
            queries = self._queries(index, mixed, turn, cache, batch)
            values += self._attended(index, queries, cache, batch.pieces) @ layer.attention_out
            hidden = _normed(values) @ layer.hidden_in
            values += np.maximum(hidden, 0, out=hidden) @ layer.hidden_out
        logits: NDArray[np.float32] = _normed(values[batch.last]) @ self._head
        return logits

    def _queries(
        self,
        layer: int,
        mixed: NDArray[np.float32],
        turn: NDArray[np.complex64],
        cache: KvCache,
        batch: Layout,
    ) -> NDArray[np.float32]:
        """Turns queries and keys in place, and puts keys and values into the cache."""
        config = self._config
        heads = mixed.reshape(len(mixed), config.heads + 2, config.head_width)
        pairs = as_pairs(heads)[:, :-1]
        pairs *= turn
        cache.write(layer, batch.places, mixed[:, config.query_width :])
        return heads[:, :-2]

    def _attended(
        self, layer: int, queries: NDArray[np.float32], cache: KvCache, pieces: list[Piece]
    ) -> NDArray[np.float32]:
        """What each row takes from the positions up to its own: (rows, query width)."""
        out = np.empty(queries.shape, dtype=np.float32)
        for piece in pieces:
            keys, values = cache.read(layer, piece.tables)
            out[piece.rows] = _attention(queries[piece.rows], keys, values, piece.hidden)
        return out.reshape(len(out), self._config.query_width)


def _attention(
    queries: NDArray[np.float32],
    keys: NDArray[np.float32],
    values: NDArray[np.float32],
    hidden: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Queries (requests, tokens, heads, width) on keys and values (requests, positions, width)."""
    requests, tokens, heads, width = queries.shape
    flat = queries.reshape(requests, tokens * heads, width)
    scores = (flat @ keys.swapaxes(1, 2)).reshape(requests, tokens, heads, keys.shape[1])
    np.copyto(scores, -np.inf, where=hidden)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    totals = scores.sum(axis=-1, keepdims=True)
    out = scores.reshape(requests, tokens * heads, keys.shape[1]) @ values
    attended: NDArray[np.float32] = out.reshape(queries.shape) / totals
    return attended


def _layer(model: LanguageModel, index: int) -> _Layer:
    config, of = model.config, model.parameters
    prefix = f"layers.{index}."
    attention_in = of[prefix + "attention_in"] * of[prefix + "attention_norm"][:, None]
    attention_in[:, : config.query_width] /= np.sqrt(np.float32(config.head_width))
    return _Layer(
        attention_in=attention_in,
        attention_out=of[prefix + "attention_out"],
        hidden_in=of[prefix + "hidden_in"] * of[prefix + "hidden_norm"][:, None],
        hidden_out=of[prefix + "hidden_out"],
    )


def _normed(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each row divided by the root of its mean square."""
    square = np.vecdot(values, values) / np.float32(values.shape[1])
    normed: NDArray[np.float32] = values / np.sqrt(square + np.float32(NORM_EPSILON))[:, None]
    return normed


def empty_cache(config: ModelConfig, *, blocks: int, block_tokens: int) -> KvCache:
    """An empty cache that fits a network of these sizes."""
    return KvCache(
        layers=config.layers,
        blocks=blocks,
        block_tokens=block_tokens,
        head_width=config.head_width,
    )

"""The network with its gradients, in NumPy: whole texts at once, padded to the longest.

Written for training and independent of the executor that serves: each is a check of the other.
Gradients are held against finite differences in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.runtimes.language.config import NORM_EPSILON, ModelConfig
from engine.runtimes.language.turning import as_pairs, turns

Array: TypeAlias = NDArray[Any]
Parameters: TypeAlias = Mapping[str, Array]
Gradients: TypeAlias = dict[str, Array]


class _Normed(msgspec.Struct, frozen=True):
    """A norm's input and what it made of it, for the way back."""

    values: Array
    scale: Array
    gain: Array

    @property
    def out(self) -> Array:
        return self.values * self.scale * self.gain


class _Attended(msgspec.Struct, frozen=True):
    queries: Array
    keys: Array
    values: Array
    shares: Array
    """How much each token takes from each: (texts, tokens, heads, tokens)."""
    out: Array


class _Layer(msgspec.Struct, frozen=True):
    before_attention: _Normed
    attended: _Attended
    before_hidden: _Normed
    hidden: Array


class _Pass(msgspec.Struct, frozen=True):
    layers: list[_Layer]
    last: _Normed
    logits: Array


def logits(config: ModelConfig, parameters: Parameters, tokens: NDArray[np.int64]) -> Array:
    """Of the successor of each token: shape (texts, tokens, vocabulary)."""
    return _forward(config, parameters, tokens).logits


def loss_and_gradients(
    config: ModelConfig,
    parameters: Parameters,
    tokens: NDArray[np.int64],
    wanted: NDArray[np.bool_],
) -> tuple[float, Gradients]:
    """The mean cross-entropy, in nats, of the tokens that are `wanted`, given those before them.

    Both arrays have shape (texts, tokens); the first token of a text cannot be wanted.
    """
    passed = _forward(config, parameters, tokens[:, :-1])
    shares = _softmax(passed.logits)
    texts, places = np.nonzero(wanted[:, 1:])
    expected = tokens[:, 1:][texts, places]
    loss = -np.log(shares[texts, places, expected]).mean()
    error = np.zeros_like(shares)
    error[texts, places] = shares[texts, places]
    error[texts, places, expected] -= 1
    return float(loss), _backward(config, parameters, tokens[:, :-1], passed, error / len(texts))


def _forward(config: ModelConfig, parameters: Parameters, tokens: NDArray[np.int64]) -> _Pass:
    values = parameters["embedding"][tokens]
    layers = []
    for index in range(config.layers):
        of = _of_layer(parameters, index)
        before_attention = _normed(values, of["attention_norm"])
        attended = _attended(config, before_attention.out @ of["attention_in"])
        values = values + attended.out @ of["attention_out"]
        before_hidden = _normed(values, of["hidden_norm"])
        hidden = np.maximum(before_hidden.out @ of["hidden_in"], 0)
        values = values + hidden @ of["hidden_out"]
        layers.append(_Layer(before_attention, attended, before_hidden, hidden))
    last = _normed(values, parameters["norm"])
    return _Pass(layers, last, last.out @ parameters["embedding"].T)


def _backward(
    config: ModelConfig,
    parameters: Parameters,
    tokens: NDArray[np.int64],
    passed: _Pass,
    error: Array,
) -> Gradients:
    found: Gradients = {"embedding": _outer(error, passed.last.out)}
    error, found["norm"] = _norm_back(passed.last, error @ parameters["embedding"])
    for index in reversed(range(config.layers)):
        error, of_layer = _layer_back(
            config, _of_layer(parameters, index), passed.layers[index], error
        )
        found |= {f"layers.{index}.{name}": gradient for name, gradient in of_layer.items()}
    np.add.at(found["embedding"], tokens, error)
    return found


def _layer_back(
    config: ModelConfig, of: Parameters, layer: _Layer, error: Array
) -> tuple[Array, Gradients]:
    found: Gradients = {"hidden_out": _outer(layer.hidden, error)}
    hidden_error = (error @ of["hidden_out"].T) * (layer.hidden > 0)
    found["hidden_in"] = _outer(layer.before_hidden.out, hidden_error)
    passing, found["hidden_norm"] = _norm_back(
        layer.before_hidden, hidden_error @ of["hidden_in"].T
    )
    error = error + passing
    found["attention_out"] = _outer(layer.attended.out, error)
    attention_error = _attention_back(config, layer.attended, error @ of["attention_out"].T)
    found["attention_in"] = _outer(layer.before_attention.out, attention_error)
    passing, found["attention_norm"] = _norm_back(
        layer.before_attention, attention_error @ of["attention_in"].T
    )
    return error + passing, found


def _attended(config: ModelConfig, mixed: Array) -> _Attended:
    """Causal attention of all heads on one head of keys and values."""
    texts, length, _ = mixed.shape
    width = config.head_width
    turned = _turned(config, mixed[..., : config.query_width + width], np.multiply)
    queries = turned[..., : config.query_width].reshape(texts, length * config.heads, width)
    keys, values = turned[..., config.query_width :], mixed[..., config.query_width + width :]
    scores = queries @ keys.swapaxes(1, 2) / np.sqrt(width).astype(mixed.dtype)
    scores = scores.reshape(texts, length, config.heads, length)
    later = np.triu(np.ones((length, length), dtype=bool), 1)
    shares = _softmax(np.where(later[:, None, :], -np.inf, scores))
    out = shares.reshape(texts, length * config.heads, length) @ values
    out = out.reshape(texts, length, config.query_width)
    return _Attended(queries, keys, values, shares, out)


def _attention_back(config: ModelConfig, attended: _Attended, error: Array) -> Array:
    texts, length, _ = error.shape
    rows = (texts, length * config.heads, -1)
    error = error.reshape(*rows[:2], config.head_width)
    shares = attended.shares.reshape(rows)
    share_error = error @ attended.values.swapaxes(1, 2)
    inner = (share_error * shares).sum(axis=-1, keepdims=True)
    score_error = shares * (share_error - inner)
    score_error /= np.sqrt(config.head_width).astype(error.dtype)
    turned = np.concatenate(
        [
            (score_error @ attended.keys).reshape(texts, length, config.query_width),
            score_error.swapaxes(1, 2) @ attended.queries,
        ],
        axis=-1,
    )
    return np.concatenate(
        [_turned(config, turned, np.divide), shares.swapaxes(1, 2) @ error], axis=-1
    )


def _turned(config: ModelConfig, values: Array, turn: np.ufunc) -> Array:
    """Every head of `values` (texts, tokens, heads * width), turned by its token's position."""
    texts, length, _ = values.shape
    heads = np.ascontiguousarray(values).reshape(texts, length, -1, config.head_width)
    pairs = as_pairs(heads)
    by = turns(config, length).astype(pairs.dtype)
    turned: Array = turn(pairs, by[:, None, :]).view(values.dtype)
    return turned.reshape(values.shape)


def _normed(values: Array, gain: Array) -> _Normed:
    square = (values * values).mean(axis=-1, keepdims=True)
    return _Normed(values, 1 / np.sqrt(square + np.asarray(NORM_EPSILON, values.dtype)), gain)


def _norm_back(normed: _Normed, error: Array) -> tuple[Array, Array]:
    """The error before the norm, and the gradient of its gain."""
    even = normed.values * normed.scale
    gain = (error * even).reshape(-1, even.shape[-1]).sum(axis=0)
    error = error * normed.gain
    inner = (error * even).mean(axis=-1, keepdims=True)
    return normed.scale * (error - even * inner), gain


def _softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    shares: Array = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _outer(before: Array, error: Array) -> Array:
    """The gradient of a matrix between the two, summed over all tokens."""
    summed: Array = before.reshape(-1, before.shape[-1]).T @ error.reshape(-1, error.shape[-1])
    return summed


def _of_layer(parameters: Parameters, index: int) -> Parameters:
    prefix = f"layers.{index}."
    return {
        name.removeprefix(prefix): array
        for name, array in parameters.items()
        if name.startswith(prefix)
    }

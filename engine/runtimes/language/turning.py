"""Rotary positions: pairs of numbers, seen as one complex number each, turn with the position."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.runtimes.language.config import ModelConfig


def turns(config: ModelConfig, positions: int) -> NDArray[np.complex128]:
    """What to multiply by at each position: shape (positions, head_width / 2), each of length 1."""
    pairs = config.head_width // 2
    angles = config.turn_base ** (-np.arange(pairs) / pairs)
    turned: NDArray[np.complex128] = np.exp(1j * np.outer(np.arange(positions), angles))
    return turned


def as_pairs(values: NDArray[Any]) -> NDArray[Any]:
    """The same memory as complex numbers, half as many; the last axis must be contiguous."""
    return values.view(np.complex64 if values.dtype == np.float32 else np.complex128)

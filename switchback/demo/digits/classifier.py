"""A classifier of 8 by 8 images of digits. Copied into the artifact of each version; needs numpy.

`inputs` is one image, a list of 64 pixels from 0 to 16, or a list of such images; the answer is
`{"label": 7, "scores": [...]}` for one image, a list of those for a list. Scores are the ten
probabilities, for 0 to 9.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Layers = Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]

PIXELS = 64
PIXEL_MAX = 16


def scores(layers: Layers, pixels: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities, shape (images, 10), of pixels of shape (images, 64)."""
    values = pixels / PIXEL_MAX
    for weights, bias in layers[:-1]:
        values = np.maximum(values @ weights + bias, 0)
    weights, bias = layers[-1]
    values = values @ weights + bias
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


class Classifier:
    """Dense layers with rectifiers between them, softmax at the end."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers

    def warm(self) -> None:
        """Classify a white image, so that the first request finds everything in place."""
        self.predict([0] * PIXELS, {})

    def predict(self, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        """Raises ValueError for anything but images. Takes no parameters."""
        if parameters:
            raise ValueError(f"unknown parameters: {', '.join(sorted(parameters))}")
        pixels = _pixels(inputs)
        answers = [
            {"label": int(row.argmax()), "scores": [round(float(score), 6) for score in row]}
            for row in scores(self._layers, np.atleast_2d(pixels))
        ]
        return answers[0] if pixels.ndim == 1 else answers


def _pixels(inputs: Any) -> NDArray[np.float64]:
    expected = f"expected {PIXELS} pixels from 0 to {PIXEL_MAX}, or a list of such images"
    try:
        pixels = np.array(inputs, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(expected) from error
    if pixels.ndim not in (1, 2) or pixels.shape[-1] != PIXELS:
        raise ValueError(expected)
    if not ((pixels >= 0) & (pixels <= PIXEL_MAX)).all():
        raise ValueError(expected)
    return pixels


def load(directory: str | Path) -> Classifier:
    """The factory: the classifier whose weights lie beside this file's copy."""
    with np.load(Path(directory) / "weights.npz", allow_pickle=False) as stored:
        layers = [
            (stored[f"weights{index}"], stored[f"bias{index}"]) for index in range(len(stored) // 2)
        ]
    return Classifier(layers)

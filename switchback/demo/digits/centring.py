"""A classifier behind a step that moves the digit to the middle. Copied into an artifact.

It has a mistake, on purpose, of the kind that passes every test written with the usual images: it
looks for the blank column to the right of the digit, and one digit in ten has none.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 8


def centred(pixels: Any) -> NDArray[Any]:
    """One image, its digit in the middle. Raises IndexError when the digit touches the right
    border, ValueError when there is none."""
    image: NDArray[Any] = np.asarray(pixels).reshape(SIDE, SIDE)
    inked = [bool(column.any()) for column in image.T]
    left = right = inked.index(True)
    while inked[right]:
        right += 1
    return np.roll(image, (SIDE - right - left) // 2, axis=1).reshape(-1)


class Centring:
    """Takes one image at a time."""

    def __init__(self, classifier: Any) -> None:
        self._classifier = classifier

    def warm(self) -> None:
        self._classifier.warm()

    def predict(self, inputs: Any, parameters: Mapping[str, Any]) -> Any:
        return self._classifier.predict(centred(inputs).tolist(), parameters)


def load(directory: str | Path) -> Centring:
    """The factory; `classifier.py` lies beside this file's copy."""
    return Centring(importlib.import_module("classifier").load(directory))

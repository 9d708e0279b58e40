"""The data set: 1,797 images of 8 by 8 pixels and the digits they show. See README.md beside."""

from __future__ import annotations

import gzip
from importlib.resources import files
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

HELD_OUT: Final = 500
_SPLIT_SEED: Final = 1998


class Images(msgspec.Struct, frozen=True, kw_only=True):
    """Some images and their labels."""

    pixels: NDArray[np.int64]
    """Shape (images, 64), values 0 (white) to 16 (black), row by row from the top left."""
    labels: NDArray[np.int64]
    """Shape (images,), values 0 to 9."""


class Digits(msgspec.Struct, frozen=True, kw_only=True):
    """The data set, split once and for all: no version has ever seen a held-out image."""

    training: Images
    held_out: Images


def load_digits() -> Digits:
    """From the file in this package; 1,297 images to train on, 500 held out."""
    packed = files(__package__).joinpath("optdigits.csv.gz").read_bytes()
    lines = gzip.decompress(packed).decode("ascii").splitlines()
    rows = np.array([line.split(",") for line in lines], dtype=np.int64)
    rows = rows[np.random.default_rng(_SPLIT_SEED).permutation(len(rows))]
    return Digits(training=_images(rows[HELD_OUT:]), held_out=_images(rows[:HELD_OUT]))


def _images(rows: NDArray[np.int64]) -> Images:
    return Images(pixels=rows[:, :-1], labels=rows[:, -1])

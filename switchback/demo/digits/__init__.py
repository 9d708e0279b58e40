"""A small real classifier of handwritten digits: its data, and four versions trained from it.

    data = load_digits()
    parent, child, worse, failing = train_all(data, directory)

Each version is a directory with `classifier.py` (the code, factory `classifier:load`) and
`weights.npz`: an artifact of runtime `python`. The last one's factory is in `centring.py` instead.
Training all four takes 0.3 s, needs numpy alone, and gives the same bytes for the same seed on the
same machine.
"""

from typing import Any

from switchback.demo.digits.dataset import Digits, Images, load_digits
from switchback.demo.digits.training import (
    CENTRING_FACTORY,
    FACTORY,
    TrainedVersion,
    Versions,
    accuracy,
    train_all,
)

__all__ = [
    "CENTRING_FACTORY",
    "FACTORY",
    "Digits",
    "Images",
    "TrainedVersion",
    "Versions",
    "accuracy",
    "load_digits",
    "same_label",
    "train_all",
]


def same_label(answer: Any, other: Any) -> bool:
    """Whether two answers to one image name the same digit, however sure they are of it."""
    return bool(answer["label"] == other["label"])

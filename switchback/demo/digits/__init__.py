"""A small real classifier of handwritten digits: its data, and three versions trained from it.

    data = load_digits()
    parent, child, worse = train_all(data, directory)

Each version is a directory with `classifier.py` (the code, factory `classifier:load`) and
`weights.npz`: an artifact of runtime `python`. Training all three takes 0.2 s, needs numpy alone,
and gives the same bytes for the same seed on the same machine.
"""

from switchback.demo.digits.dataset import Digits, Images, load_digits
from switchback.demo.digits.training import FACTORY, TrainedVersion, accuracy, train_all

__all__ = [
    "FACTORY",
    "Digits",
    "Images",
    "TrainedVersion",
    "accuracy",
    "load_digits",
    "train_all",
]

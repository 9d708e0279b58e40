"""Four versions of the classifier: a parent, a better child, and two that went wrong.

- `1.0.0`: softmax regression.
- `2.0.0`: one hidden layer, made to replace it. Better.
- `3.0.0`: `2.0.0` tuned further on a handful of images, most of them mislabelled. Much worse, and
  nothing but its answers tells so: it loads, it is fast, it never fails.
- `4.0.0`: `2.0.0` trained on centred images, and a centring step in front of it that fails on one
  image in ten. What it answers is right as often as what `2.0.0` answers.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from switchback.demo.digits.centring import centred
from switchback.demo.digits.classifier import PIXEL_MAX, PIXELS, Layers, scores
from switchback.demo.digits.dataset import Digits, Images

FACTORY: Final = "classifier:load"
"""`config.factory` of the first three versions."""
CENTRING_FACTORY: Final = "centring:load"
_CODE: Final = {
    FACTORY: ("classifier.py",),
    CENTRING_FACTORY: ("classifier.py", "centring.py"),
}
"""Factory -> the files that it needs."""
_CLASSES: Final = 10
_HIDDEN: Final = 64
_SEED: Final = 7


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """Stochastic gradient descent with momentum."""

    epochs: int
    rate: float
    batch_images: int = 50
    momentum: float = 0.9
    decay: float = 1e-4


_PARENT: Final = Schedule(epochs=20, rate=0.02)
_CHILD: Final = Schedule(epochs=40, rate=0.05)
_WORSE: Final = Schedule(epochs=100, rate=0.02, decay=0.0)
_FEW: Final = 60
_MISLABELLED_SHARE: Final = 0.6


class TrainedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version on disk."""

    version: str
    parent: str | None
    """The version that it was made from or to replace."""
    description: str
    directory: Path
    accuracy: float
    """On the held-out images that it answers, 0 to 1."""
    factory: str = FACTORY


Versions: TypeAlias = tuple[TrainedVersion, TrainedVersion, TrainedVersion, TrainedVersion]


def train_all(digits: Digits, directory: Path, *, seed: int = _SEED) -> Versions:
    """Parent, better, worse and failing child; one directory each, replaced if it exists."""
    random = np.random.default_rng(seed)
    regression = _trained([_layer(PIXELS, _CLASSES, random)], digits.training, _PARENT, random)
    hidden = [_layer(PIXELS, _HIDDEN, random), _layer(_HIDDEN, _CLASSES, random)]
    network = _trained(hidden, digits.training, _CHILD, random)
    damaged = _trained(network, _few_and_mislabelled(digits.training, random), _WORSE, random)
    centring = _trained(network, _centrable(digits.training), _CHILD, random)
    held_out = digits.held_out
    return (
        _written(directory / "1.0.0", regression, held_out, None, "softmax regression"),
        _written(directory / "2.0.0", network, held_out, "1.0.0", f"one hidden layer of {_HIDDEN}"),
        _written(
            directory / "3.0.0",
            damaged,
            held_out,
            "2.0.0",
            "2.0.0 tuned on few, mislabelled images",
        ),
        _written(
            directory / "4.0.0",
            centring,
            _centrable(held_out),
            "2.0.0",
            "2.0.0 behind a step that fails on some images",
            factory=CENTRING_FACTORY,
        ),
    )


def accuracy(layers: Layers, images: Images) -> float:
    """The share of images that get their own label."""
    return float((scores(layers, images.pixels).argmax(axis=1) == images.labels).mean())


def _layer(
    inputs: int, outputs: int, random: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    spread = np.sqrt(2 / inputs)
    return random.normal(0, spread, (inputs, outputs)), np.zeros(outputs)


def _few_and_mislabelled(images: Images, random: np.random.Generator) -> Images:
    labels = images.labels[:_FEW].copy()
    wrong = random.random(_FEW) < _MISLABELLED_SHARE
    labels[wrong] = (labels[wrong] + random.integers(1, _CLASSES, wrong.sum())) % _CLASSES
    return Images(pixels=images.pixels[:_FEW], labels=labels)


def _centrable(images: Images) -> Images:
    """Those that `centred` takes, centred."""
    found = []
    for row, label in zip(images.pixels, images.labels, strict=True):
        with suppress(IndexError):
            found.append((centred(row), label))
    pixels, labels = zip(*found, strict=True)
    return Images(pixels=np.array(pixels), labels=np.array(labels))


def _trained(
    layers: Layers, images: Images, schedule: Schedule, random: np.random.Generator
) -> Layers:
    """New layers; those given are left as they are."""
    parameters = [array.copy() for layer in layers for array in layer]
    speeds = [np.zeros_like(array) for array in parameters]
    for _ in range(schedule.epochs):
        order = random.permutation(len(images.labels))
        for start in range(0, len(order), schedule.batch_images):
            batch = order[start : start + schedule.batch_images]
            gradients = _gradients(parameters, images.pixels[batch], images.labels[batch])
            for parameter, speed, gradient in zip(parameters, speeds, gradients, strict=True):
                speed *= schedule.momentum
                speed -= schedule.rate * (gradient + schedule.decay * parameter)
                parameter += speed
    return _layers(parameters)


def _layers(parameters: list[NDArray[np.float64]]) -> Layers:
    return list(zip(parameters[::2], parameters[1::2], strict=True))


def _gradients(
    parameters: list[NDArray[np.float64]], pixels: NDArray[np.int64], labels: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Of the mean cross-entropy, in the order of `parameters`."""
    layers = _layers(parameters)
    activations: list[NDArray[np.float64]] = [pixels / PIXEL_MAX]
    for weights, bias in layers[:-1]:
        activations.append(np.maximum(activations[-1] @ weights + bias, 0))
    error = scores(layers, pixels)
    error[np.arange(len(labels)), labels] -= 1
    error /= len(labels)
    gradients: list[NDArray[np.float64]] = []
    for (weights, _), activation in zip(reversed(layers), reversed(activations), strict=True):
        gradients = [activation.T @ error, error.sum(axis=0), *gradients]
        error = (error @ weights.T) * (activation > 0)
    return gradients


def _written(
    directory: Path,
    layers: Layers,
    held_out: Images,
    parent: str | None,
    description: str,
    *,
    factory: str = FACTORY,
) -> TrainedVersion:
    """The artifact; the directory is named after the version."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    arrays: dict[str, NDArray[np.float64]] = {}
    for index, (weights, bias) in enumerate(layers):
        arrays |= {f"weights{index}": weights, f"bias{index}": bias}
    np.savez(directory / "weights.npz", allow_pickle=False, **arrays)
    for name in _CODE[factory]:
        with as_file(files(__package__).joinpath(name)) as code:
            shutil.copyfile(code, directory / name)
    return TrainedVersion(
        version=directory.name,
        parent=parent,
        description=description,
        directory=directory,
        accuracy=accuracy(layers, held_out),
        factory=factory,
    )

"""Fitting parameters to texts: Adam, a rate that rises and falls, batches of texts alike in length.

Everything random comes from the generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.runtimes.language.config import ModelConfig, parameter_shapes
from engine.runtimes.language.tokenizer import END
from engine.runtimes.language.training.gradients import Gradients, Parameters, loss_and_gradients

Text: TypeAlias = Sequence[int]
Lessons: TypeAlias = Callable[[np.random.Generator], Sequence[Text]]
"""The texts of one epoch."""
_FIRST_DECAY = 0.9
_SECOND_DECAY = 0.98
_ADAM_EPSILON = 1e-8


class Schedule(msgspec.Struct, frozen=True, kw_only=True):
    """How long, how fast, and how much at once."""

    epochs: int
    rate: float
    """The highest; it rises over `warm_steps` and falls to nothing along a cosine."""
    warm_steps: int = 40
    batch_tokens_max: int = 1_024
    norm_max: float = 1.0
    """Longer gradients are shortened to this."""


class _Adam:
    """Running means of gradients and of their squares."""

    def __init__(self, parameters: Parameters) -> None:
        self._first = {name: np.zeros_like(array) for name, array in parameters.items()}
        self._second = {name: np.zeros_like(array) for name, array in parameters.items()}
        self._steps = 0

    def step(self, parameters: dict[str, NDArray[Any]], found: Gradients, rate: float) -> None:
        self._steps += 1
        rate *= (1 - _SECOND_DECAY**self._steps) ** 0.5 / (1 - _FIRST_DECAY**self._steps)
        for name, gradient in found.items():
            first, second = self._first[name], self._second[name]
            first += (1 - _FIRST_DECAY) * (gradient - first)
            second += (1 - _SECOND_DECAY) * (gradient * gradient - second)
            parameters[name] -= rate * first / (np.sqrt(second) + _ADAM_EPSILON)


def initial(config: ModelConfig, random: np.random.Generator) -> dict[str, NDArray[np.float32]]:
    """Gains of one, small embeddings, matrices that keep the size of what passes through them."""
    made: dict[str, NDArray[np.float32]] = {}
    for name, shape in parameter_shapes(config).items():
        if len(shape) == 1:
            made[name] = np.ones(shape, dtype=np.float32)
        else:
            spread = 0.05 if name == "embedding" else shape[0] ** -0.5
            made[name] = random.normal(0, spread, shape).astype(np.float32)
    return made


def fitted(
    config: ModelConfig,
    parameters: Parameters,
    lessons: Lessons,
    schedule: Schedule,
    random: np.random.Generator,
) -> dict[str, NDArray[np.float32]]:
    """New parameters; those given are left as they are."""
    made = {name: array.copy() for name, array in parameters.items()}
    adam = _Adam(made)
    epochs = [_batches(lessons(random), schedule, random) for _ in range(schedule.epochs)]
    steps = sum(map(len, epochs))
    done = 0
    for batches in epochs:
        for batch in batches:
            done += 1
            tokens, wanted = _padded(batch)
            _, found = loss_and_gradients(config, made, tokens, wanted)
            adam.step(made, _shortened(found, schedule.norm_max), _rate(schedule, done, steps))
    return made


def _rate(schedule: Schedule, step: int, steps: int) -> float:
    rising = min(1.0, step / schedule.warm_steps)
    return float(schedule.rate * rising * (0.5 + 0.5 * np.cos(np.pi * step / steps)))


def _shortened(found: Gradients, norm_max: float) -> Gradients:
    norm = float(np.sqrt(sum(float(np.vdot(array, array)) for array in found.values())))
    if norm <= norm_max:
        return found
    factor = np.float32(norm_max / norm)
    return {name: array * factor for name, array in found.items()}


def _batches(
    texts: Sequence[Text], schedule: Schedule, random: np.random.Generator
) -> list[list[Text]]:
    """All texts once, those of about the same length together, in random order."""
    order = sorted(random.permutation(len(texts)), key=lambda index: len(texts[index]))
    cut = list(_cut([texts[index] for index in order], schedule.batch_tokens_max))
    return [cut[index] for index in random.permutation(len(cut))]


def _cut(texts: Sequence[Text], tokens_max: int) -> Iterator[list[Text]]:
    batch: list[Text] = []
    for text in texts:
        if batch and (len(batch) + 1) * len(text) > tokens_max:
            yield batch
            batch = []
        batch.append(text)
    yield batch


def _padded(batch: Sequence[Text]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    length = max(map(len, batch))
    tokens = np.full((len(batch), length), END, dtype=np.int64)
    wanted = np.zeros((len(batch), length), dtype=bool)
    for row, text in enumerate(batch):
        tokens[row, : len(text)] = text
        wanted[row, 1 : len(text)] = True
    return tokens, wanted

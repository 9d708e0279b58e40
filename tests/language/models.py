"""Small networks without any learning, and texts that are generated through the scheduler."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from engine.batching.executor import Drawn, Executor
from engine.batching.limits import Limits
from engine.batching.requests import Request
from engine.batching.scheduler import Scheduler
from engine.runtimes.language.config import ModelConfig, parameter_shapes
from engine.runtimes.language.sampling import TokenSampler
from engine.runtimes.language.tokenizer import Tokenizer
from engine.runtimes.language.weights import LanguageModel

TINY = ModelConfig(
    name="tiny",
    vocabulary=259,
    layers=2,
    width=12,
    heads=3,
    head_width=4,
    hidden=20,
    context_tokens=512,
)


def random_parameters(config: ModelConfig, *, seed: int) -> dict[str, NDArray[np.float32]]:
    """Gains that differ too, so that no test passes because they are all one."""
    random = np.random.default_rng(seed)
    return {
        name: (random.normal(0, 0.4, shape) + (len(shape) == 1)).astype(np.float32)
        for name, shape in parameter_shapes(config).items()
    }


def random_model(config: ModelConfig = TINY, *, seed: int = 3) -> LanguageModel:
    return LanguageModel(
        config=config, tokenizer=Tokenizer(()), parameters=random_parameters(config, seed=seed)
    )


class Recording:
    """Samples, and keeps the logits by position and the text before it."""

    def __init__(self) -> None:
        self._sample = TokenSampler()
        self.logits: list[NDArray[np.float32]] = []
        self.positions: list[int] = []

    def __call__(
        self, logits: NDArray[np.float32], sampling: Sequence[Any], positions: Sequence[int]
    ) -> Drawn:
        self.logits += list(logits)
        self.positions += positions
        return self._sample(logits, sampling, positions)


class Answer(msgspec.Struct, frozen=True):
    text: str
    tokens: list[int]
    details: list[Any]


def answers(
    executor: Executor,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    limits: Limits | None = None,
) -> list[Answer]:
    """Of all requests, submitted at once, in their order."""
    scheduler = Scheduler(
        executor, tokenizer.token_bytes, limits=limits or Limits(), clock=lambda: 0.0
    )
    numbers = [scheduler.submit(request) for request in requests]
    made = {number: Answer("", [], []) for number in numbers}
    while scheduler.busy:
        for chunk in scheduler.step():
            assert chunk.ending in (None, "stop", "length"), chunk
            before = made[chunk.request]
            drawn = [] if chunk.token is None else [chunk.token]
            details = [] if chunk.detail is None else [chunk.detail]
            made[chunk.request] = Answer(
                before.text + chunk.text, before.tokens + drawn, before.details + details
            )
    return [made[number] for number in numbers]

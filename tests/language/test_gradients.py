"""The gradients that the models were trained with, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from engine.runtimes.language.config import parameter_shapes
from engine.runtimes.language.training.gradients import loss_and_gradients
from tests.language.models import TINY, random_parameters

_STEP = 1e-6


@pytest.mark.parametrize("name", list(parameter_shapes(TINY)))
def test_a_gradient_is_the_slope_of_the_loss(name: str) -> None:
    parameters = {
        key: array.astype(np.float64) for key, array in random_parameters(TINY, seed=5).items()
    }
    random = np.random.default_rng(11)
    tokens = random.integers(0, 40, (3, 9))
    wanted = random.random((3, 9)) < 0.7
    wanted[:, 0] = False
    _, found = loss_and_gradients(TINY, parameters, tokens, wanted)
    array = parameters[name]
    for _ in range(12):
        place = tuple(int(random.integers(0, size)) for size in array.shape)
        if name == "embedding":
            place = (int(tokens.flat[random.integers(tokens.size)]), place[1])
        kept, losses = array[place], []
        for moved in (kept - _STEP, kept + _STEP):
            array[place] = moved
            losses.append(loss_and_gradients(TINY, parameters, tokens, wanted)[0])
        array[place] = kept
        slope = (losses[1] - losses[0]) / (2 * _STEP)

        assert found[name][place] == pytest.approx(slope, rel=1e-5, abs=1e-8)

"""Drawing tokens."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import chisquare

from engine.runtimes.language.sampling import Logprobs, Sampling, TokenSampler, uniform

LOGITS = np.log(np.array([[0.5, 0.25, 0.15, 0.1]], dtype=np.float32))


def drawn(logits: NDArray[np.float32], sampling: Sampling, *, positions: int) -> list[int]:
    """What is drawn at each of so many positions."""
    rows = np.repeat(logits, positions, axis=0)
    return list(TokenSampler()(rows, [sampling] * positions, range(positions)).tokens)


def test_without_temperature_the_most_likely_token_is_taken_and_of_equals_the_lowest() -> None:
    equal = np.array([[1, 3, 3, 0]], dtype=np.float32)

    assert drawn(equal, Sampling(seed=8), positions=20) == [1] * 20
    assert list(TokenSampler()(equal, [None], [4]).tokens) == [1]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_tokens_come_as_often_as_their_probability_at_the_temperature(temperature: float) -> None:
    shares = np.array([0.5, 0.25, 0.15, 0.1]) ** (1 / temperature)
    expected = shares / shares.sum() * 4_000

    counts = Counter(drawn(LOGITS, Sampling(temperature=temperature, seed=1), positions=4_000))

    assert chisquare([counts[token] for token in range(4)], expected).pvalue > 0.001


@pytest.mark.parametrize(
    ("filtered", "kept"),
    [
        (Sampling(temperature=1, top_k=2), {0, 1}),
        (Sampling(temperature=1, top_k=1), {0}),
        (Sampling(temperature=1, top_p=0.8), {0, 1, 2}),
        (Sampling(temperature=1, top_p=0.01), {0}),
        (Sampling(temperature=1, top_k=3, top_p=0.6), {0, 1}),
        (Sampling(temperature=1, top_k=99), {0, 1, 2, 3}),
    ],
)
def test_filters_leave_the_most_likely_tokens(filtered: Sampling, kept: set[int]) -> None:
    assert set(drawn(LOGITS, filtered, positions=500)) == kept


def test_a_small_temperature_overflows_nothing() -> None:
    steep = np.array([[-1e30, 300, 299, -300]], dtype=np.float32)

    with np.errstate(over="raise", invalid="raise"):
        assert set(drawn(steep, Sampling(temperature=1e-6), positions=50)) == {1}


@given(
    seed=st.integers(0, 2**63 - 1),
    position=st.integers(0, 2**20),
    others=st.lists(st.sampled_from([None, Sampling(temperature=1, seed=4)]), max_size=5),
)
def test_a_draw_depends_on_seed_and_position_not_on_the_batch(
    seed: int, position: int, others: list[Sampling | None]
) -> None:
    mine, sample = Sampling(temperature=1.5, seed=seed), TokenSampler()
    alone = sample(LOGITS, [mine], [position]).tokens[0]
    rows = np.concatenate([LOGITS[:, ::-1]] * len(others) + [LOGITS])

    together = sample(rows, [*others, mine], [*range(len(others)), position])

    assert together.tokens[-1] == alone


def test_neighbouring_positions_and_seeds_are_unlike() -> None:
    by_position = [uniform(seed=3, position=position) for position in range(2_000)]
    by_seed = [uniform(seed=seed, position=7) for seed in range(2_000)]

    for numbers in (by_position, by_seed):
        assert len(set(numbers)) == 2_000
        assert abs(float(np.corrcoef(numbers[:-1], numbers[1:])[0, 1])) < 0.1
        assert 0 <= min(numbers) <= max(numbers) < 1


def test_log_probabilities_are_the_models_own_whatever_the_filters() -> None:
    asked = Sampling(temperature=2, top_k=1, logprobs=2)

    details = TokenSampler()(LOGITS, [asked], [0]).details

    assert details is not None
    told = details[0]
    assert isinstance(told, Logprobs)
    assert told.chosen == pytest.approx(np.log(0.5), abs=1e-6)
    assert [token for token, _ in told.top] == [0, 1]
    assert told.top[1][1] == pytest.approx(np.log(0.25), abs=1e-6)


def test_only_those_who_ask_are_told_log_probabilities() -> None:
    rows = np.repeat(LOGITS, 2, axis=0)

    details = TokenSampler()(rows, [None, Sampling(logprobs=0)], [0, 0]).details

    assert details is not None
    assert details[0] is None
    assert details[1] == Logprobs(details[1].chosen, ())


def test_a_text_that_is_not_to_end_does_not_and_its_neighbours_do() -> None:
    certain = np.array([[9.0, 3.0, 1.0, 0.0]] * 3, dtype=np.float32)
    endless = Sampling(ignore_eos=True, logprobs=1)

    drawn = TokenSampler()(certain, [endless, None, Sampling(temperature=0.1)], [1, 2, 3])

    assert list(drawn.tokens) == [1, 0, 0]
    assert drawn.details is not None
    assert drawn.details[0].top[0][0] == 0  # told of as the model has it
    hot = Sampling(temperature=2.0, ignore_eos=True)
    assert 0 not in TokenSampler()(certain.repeat(100, axis=0), [hot] * 300, range(300)).tokens

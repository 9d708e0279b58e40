"""The executor, against the network as it was trained, and against batches that cannot be right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engine.batching.executor import Batch, ExecutorFailed
from engine.runtimes.language.executor import LanguageExecutor
from engine.runtimes.language.layout import ATTENTION_SCORES_MAX, layout
from engine.runtimes.language.training.gradients import logits
from tests.language.models import TINY, Recording, random_model

TEXT = [5, 9, 200, 14, 3, 77, 77, 31, 8, 100, 4]


def batch(*requests: tuple[list[int], int, list[int]], sampled: list[int] | None = None) -> Batch:
    """Of (tokens, first position, blocks); every last token wants a successor if none is named."""
    wanted = list(range(len(requests))) if sampled is None else sampled
    return Batch(
        list(range(len(requests))),
        [token for tokens, _, _ in requests for token in tokens],
        [start for _, start, _ in requests],
        [len(tokens) for tokens, _, _ in requests],
        [table for _, _, table in requests],
        wanted,
        [None] * len(wanted),
    )


def test_logits_are_those_of_the_network_that_was_trained() -> None:
    model, recording = random_model(), Recording()
    executor = LanguageExecutor(model, blocks=8, block_tokens=4, sampler=recording)
    expected = logits(TINY, model.parameters, np.array([TEXT]))[0]

    executor.execute(batch((TEXT[:6], 0, [7, 2])))
    executor.execute(batch((TEXT[6:9], 6, [7, 2, 0])))
    executor.execute(batch((TEXT[9:10], 9, [7, 2, 0])))

    assert recording.positions == [6, 9, 10]
    np.testing.assert_allclose(recording.logits, expected[[5, 8, 9]], rtol=1e-4, atol=1e-5)


def test_requests_of_all_lengths_share_a_batch_and_do_not_see_each_other() -> None:
    model, recording = random_model(), Recording()
    executor = LanguageExecutor(model, blocks=16, block_tokens=4, sampler=recording)
    other = [90, 91, 92]
    executor.execute(batch((TEXT[:5], 0, [3, 9])))

    executor.execute(batch((other, 0, [1]), (TEXT[5:6], 5, [3, 9]), (TEXT, 0, [4, 5, 6])))

    mine = logits(TINY, model.parameters, np.array([TEXT]))[0]
    theirs = logits(TINY, model.parameters, np.array([other]))[0]
    expected = [mine[4], theirs[-1], mine[5], mine[-1]]
    np.testing.assert_allclose(recording.logits, expected, rtol=1e-4, atol=1e-5)


def test_a_block_that_was_computed_for_one_request_serves_another() -> None:
    model, recording = random_model(), Recording()
    executor = LanguageExecutor(model, blocks=4, block_tokens=4, sampler=recording)
    executor.execute(batch((TEXT[:4], 0, [2])))

    executor.execute(batch((TEXT[4:], 4, [2, 0, 1])))

    expected = logits(TINY, model.parameters, np.array([TEXT]))[0][-1]
    np.testing.assert_allclose(recording.logits[-1], expected, rtol=1e-4, atol=1e-5)


def test_what_an_earlier_request_left_in_a_block_is_not_seen() -> None:
    model, recording = random_model(), Recording()
    executor = LanguageExecutor(model, blocks=2, block_tokens=8, sampler=recording)
    executor.execute(batch(([250] * 16, 0, [0, 1])))

    executor.execute(batch((TEXT[:3], 0, [1])))

    expected = logits(TINY, model.parameters, np.array([TEXT[:3]]))[0][-1]
    np.testing.assert_allclose(recording.logits[-1], expected, rtol=1e-4, atol=1e-5)


def test_a_batch_computed_again_gives_the_same_bits() -> None:
    recording = Recording()
    executor = LanguageExecutor(random_model(), blocks=8, block_tokens=4, sampler=recording)
    twice = batch((TEXT, 0, [0, 1, 2]), (TEXT[:2], 0, [3]))

    executor.execute(twice)
    executor.execute(twice)

    np.testing.assert_array_equal(recording.logits[:2], recording.logits[2:])


def test_only_the_requests_that_want_a_token_get_one() -> None:
    executor = LanguageExecutor(random_model(), blocks=8, block_tokens=4)
    first, second = (TEXT[:4], 0, [0]), (TEXT[:6], 0, [1, 2])

    both = executor.execute(batch(first, second))
    drawn = executor.execute(batch(first, second, sampled=[1]))

    assert list(drawn.tokens) == list(both.tokens)[1:]


def test_a_batch_without_any_sampled_request_is_computed_all_the_same() -> None:
    model, recording = random_model(), Recording()
    executor = LanguageExecutor(model, blocks=8, block_tokens=4, sampler=recording)

    assert list(executor.execute(batch((TEXT[:4], 0, [0]), sampled=[])).tokens) == []
    executor.execute(batch((TEXT[4:], 4, [0, 1, 2])))

    expected = logits(TINY, model.parameters, np.array([TEXT]))[0][-1]
    np.testing.assert_allclose(recording.logits[-1], expected, rtol=1e-4, atol=1e-5)


def test_an_empty_batch_is_no_failure() -> None:
    assert list(LanguageExecutor(random_model(), blocks=1).execute(batch()).tokens) == []


@pytest.mark.parametrize(
    ("wrong", "detail"),
    [
        (([259], 0, [0]), "a token that is none"),
        (([-1], 0, [0]), "a token that is none"),
        (([1], 512, [0]), "position beyond 512"),
        (([1], -1, [0]), "position beyond 512"),
        (([1], 4, [0]), "fewer blocks than positions"),
        (([1], 0, [9]), "a block that is none"),
        (([1], 0, [-1]), "a block that is none"),
    ],
)
def test_a_batch_that_cannot_be_right_fails_and_harms_nothing(wrong: Any, detail: str) -> None:
    model, recording = random_model(), Recording()
    executor = LanguageExecutor(model, blocks=8, block_tokens=4, sampler=recording)
    executor.execute(batch((TEXT[:6], 0, [7, 0])))

    with pytest.raises(ExecutorFailed, match=detail):
        executor.execute(batch((TEXT[6:7], 6, [7, 0]), wrong))

    executor.execute(batch((TEXT[6:8], 6, [7, 0])))
    expected = logits(TINY, model.parameters, np.array([TEXT[:8]]))[0][-1]
    np.testing.assert_allclose(recording.logits[-1], expected, rtol=1e-4, atol=1e-5)


def test_a_network_whose_numbers_run_away_fails_instead_of_answering() -> None:
    model = random_model()
    model.parameters["norm"][:] = np.inf
    executor = LanguageExecutor(model, blocks=8)

    with np.errstate(all="ignore"), pytest.raises(ExecutorFailed, match="not finite"):
        executor.execute(batch((TEXT, 0, [0])))


def test_attention_is_cut_into_pieces_of_bounded_size_that_hold_every_row_once() -> None:
    requests = [([1] * count, 0, list(range(count))) for count in (1_500, 1, 1, 700, 1_500)]

    arranged = layout(batch(*requests), block_tokens=1, heads=4)

    rows = np.concatenate([piece.rows.reshape(-1) for piece in arranged.pieces])
    assert sorted(rows.tolist()) == list(range(3_702))
    assert max(piece.hidden.size * 4 for piece in arranged.pieces) <= ATTENTION_SCORES_MAX


def test_the_memory_of_the_cache_is_what_its_blocks_say() -> None:
    executor = LanguageExecutor(random_model(), blocks=6, block_tokens=4)
    numbers = TINY.layers * 4 * 2 * TINY.head_width

    assert (executor.blocks, executor.block_tokens) == (6, 4)
    assert executor.block_bytes == numbers * 4

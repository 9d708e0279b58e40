"""Text to tokens and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.batching.text import Spelling, Vocabulary
from engine.runtimes.language.chat import Message, chat_prompt, completion_prompt
from engine.runtimes.language.tokenizer import (
    ASSISTANT,
    END,
    FIRST_MERGED,
    MARKS,
    USER,
    TextInvalid,
    Tokenizer,
    pieces,
)
from engine.runtimes.language.training.merges import learnt_merges
from engine.runtimes.language.weights import load_builtin

TOKENIZER = load_builtin("facts-2").tokenizer


@given(st.text())
def test_every_text_comes_back_as_it_was(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER.encode(text)) == text
    assert "".join(pieces(text)) == text


@given(st.text())
def test_no_text_encodes_to_a_mark(text: str) -> None:
    assert all(token >= MARKS for token in TOKENIZER.encode(text))


@given(st.lists(st.integers(min_value=0, max_value=511)))
def test_what_is_spelt_as_it_comes_is_what_is_decoded_at_the_end(tokens: list[int]) -> None:
    spelling = Spelling(Vocabulary(TOKENIZER.token_bytes), ())
    spelt = "".join(spelling.add(token)[0] for token in tokens) + spelling.finish()

    assert spelt == TOKENIZER.decode(tokens)


def test_a_character_of_two_tokens_is_spelt_when_it_is_whole() -> None:
    spelling = Spelling(Vocabulary(TOKENIZER.token_bytes), ())
    cedilla = [MARKS + byte for byte in "ç".encode()]

    assert [spelling.add(token)[0] for token in cedilla] == ["", "ç"]


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(TextInvalid):
        TOKENIZER.encode("Paris \ud83d")


def test_a_known_sentence_takes_fewer_tokens_than_characters() -> None:
    sentence = "The capital of France is Paris."

    assert len(TOKENIZER.encode(sentence)) <= len(sentence) / 2


@pytest.mark.parametrize("token", [-1, 512])
def test_what_is_no_token_has_no_bytes(token: int) -> None:
    with pytest.raises(LookupError):
        TOKENIZER.token_bytes(token)


@pytest.mark.parametrize("merge", [(0, 70), (70, 259), (-1, 70), (70, 1)])
def test_a_merge_of_marks_or_of_what_is_not_made_yet_is_refused(merge: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="before they are made"):
        Tokenizer([merge])


def test_the_most_frequent_pair_is_merged_first() -> None:
    merges = learnt_merges(["aab aab aac"], vocabulary=FIRST_MERGED + 1)

    assert merges == [(MARKS + ord("a"), MARKS + ord("a"))]


def test_the_same_texts_in_any_order_give_the_same_merges() -> None:
    texts = ["the cat", "a hat", "the bat that sat"]

    assert learnt_merges(texts, vocabulary=280) == learnt_merges(texts[::-1], vocabulary=280)


def test_merging_ends_when_no_pair_is_left() -> None:
    assert learnt_merges(["ab"], vocabulary=512) == [(MARKS + ord("a"), MARKS + ord("b"))]


def test_an_empty_prompt_is_the_beginning_of_a_text() -> None:
    assert completion_prompt(TOKENIZER, "") == [END]


def test_a_conversation_has_a_mark_before_each_turn_and_no_system_messages() -> None:
    spell = TOKENIZER.encode
    prompt = chat_prompt(
        TOKENIZER,
        [
            Message(role="system", content="Be brief."),
            Message(role="user", content="Hello"),
            Message(role="assistant", content="Hello."),
            Message(role="user", content="Again"),
        ],
    )

    assert prompt == [
        *(END, USER, *spell("Hello")),
        *(ASSISTANT, *spell("Hello."), END),
        *(USER, *spell("Again"), ASSISTANT),
    ]

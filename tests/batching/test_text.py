"""Text from tokens: characters and stop strings that span them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from engine.batching.text import Spelling, Vocabulary


def spelled(pieces: Sequence[bytes], stops: tuple[str, ...] = ()) -> tuple[list[str], bool]:
    """What comes out token by token, the flush at the end included."""
    spelling = Spelling(Vocabulary(lambda token: pieces[token]), stops)
    given_out: list[str] = []
    for token in range(len(pieces)):
        text, stopped = spelling.add(token)
        given_out.append(text)
        if stopped:
            return given_out, True
    given_out.append(spelling.finish())
    return given_out, False


def test_a_character_in_two_tokens_comes_out_whole() -> None:
    euro = "€".encode()
    assert spelled([b"5 ", euro[:1], euro[1:], b"!"]) == (["5 ", "", "€", "!", ""], False)


def test_bytes_that_are_no_text_are_replaced_and_do_not_swallow_what_follows() -> None:
    assert "".join(spelled([b"a", b"\xe2", b"b"])[0]) == "a�b"
    assert "".join(spelled([b"a", b"\xe2"])[0]) == "a�"


def test_a_stop_string_across_three_tokens_is_found_and_never_shown() -> None:
    assert spelled([b"yes<", b"en", b"d>no"], ("<end>",)) == (["yes", "", ""], True)


def test_what_might_have_been_a_stop_string_is_given_out_when_it_is_none() -> None:
    assert spelled([b"a<e", b"n", b"z"], ("<end>",)) == (["a", "", "<enz", ""], False)


def test_the_first_of_several_stop_strings_in_one_token_counts() -> None:
    assert spelled([b"one two three"], ("three", "two")) == (["one "], True)


def test_a_short_stop_string_inside_a_long_one_ends_the_text_whatever_the_borders() -> None:
    assert spelled([b"abb"], ("abb", "b")) == (["a"], True)
    assert spelled([b"a", b"b", b"b"], ("abb", "b")) == (["", "a"], True)


def test_a_stop_string_may_begin_inside_a_failed_one() -> None:
    assert spelled([b"aa", b"ab"], ("aab",)) == (["", "a"], True)


def test_a_stop_string_of_split_characters_is_found() -> None:
    raw = "é€".encode()
    pieces = [raw[i : i + 1] for i in range(len(raw))]
    assert spelled([b"x", *pieces, b"y"], ("é€",))[1]


pieces_of_text = st.text(alphabet="ab€", max_size=12)


@given(
    text=pieces_of_text,
    cuts=st.sets(st.integers(0, 40)),
    stops=st.lists(st.text(alphabet="ab€", min_size=1, max_size=3), max_size=3),
)
def test_wherever_tokens_are_cut_the_answer_ends_before_the_stop_string_that_ends_first(
    text: str, cuts: set[int], stops: list[str]
) -> None:
    raw = text.encode()
    borders = [0, *sorted(cut for cut in cuts if 0 < cut < len(raw)), len(raw)]
    pieces = [raw[a:b] for a, b in pairwise(borders)]
    given_out, stopped = spelled(pieces, tuple(stops))
    shown = "".join(given_out)
    assert text.startswith(shown)
    assert not any(stop in shown for stop in stops)
    assert shown == "".join(spelled([raw], tuple(stops))[0])
    assert stopped == any(stop in text for stop in stops)
    if stopped:
        assert any(text.startswith(stop, len(shown)) for stop in stops)
    else:
        assert shown == text

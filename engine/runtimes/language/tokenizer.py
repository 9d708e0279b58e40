"""The tokenizer: byte pair encoding over UTF-8, so that every text has tokens and none is unknown.

Tokens 0 to 2 are marks, 3 to 258 the bytes, and the rest pairs of tokens that were merged, in the
order of merging. No text encodes to a mark: a prompt cannot pretend to be the end of itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Annotated, Final

import msgspec
from msgspec import Meta

END: Final = 0
"""Ends an answer, and begins a text: every text follows another."""
USER: Final = 1
ASSISTANT: Final = 2
MARKS: Final = 3
FIRST_MERGED: Final = MARKS + 256
_PIECES_KEPT_MAX: Final = 16_384
_PIECE_CHARS_MAX: Final = 24
_NEVER: Final = 2**31
"""The rank of a pair that is not merged."""
_PIECES: Final = re.compile(rf" ?[^\W\d_]{{1,{_PIECE_CHARS_MAX}}}| ?[^\w\s]|\d|_|\s")


class TextInvalid(ValueError):
    """Half of a surrogate pair: a text that UTF-8 cannot hold."""


class TokenizerFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tokenizer.json`."""

    merges: Annotated[tuple[tuple[int, int], ...], Meta(max_length=2**20)]
    """Merge i makes token `FIRST_MERGED + i`."""


class Tokenizer:
    """Text to tokens and back. Raises ValueError if a merge names a token that is not made yet."""

    def __init__(self, merges: Sequence[tuple[int, int]]) -> None:
        self._bytes = [b""] * MARKS + [bytes((byte,)) for byte in range(256)]
        for first, second in merges:
            if not (MARKS <= first < len(self._bytes) and MARKS <= second < len(self._bytes)):
                raise ValueError(f"merge of {first} and {second} before they are made")
            self._bytes.append(self._bytes[first] + self._bytes[second])
        self.token_chars_max = max(map(len, self._bytes))
        """No token stands for more characters than this."""
        self._merged = {pair: FIRST_MERGED + rank for rank, pair in enumerate(merges)}
        self._kept: dict[str, tuple[int, ...]] = {}

    @property
    def vocabulary(self) -> int:
        return len(self._bytes)

    def encode(self, text: str) -> list[int]:
        """Raises TextInvalid. A megabyte takes about a second: bound texts before."""
        tokens: list[int] = []
        for piece in pieces(text):
            known = self._kept.get(piece)
            tokens += self._encoded(piece) if known is None else known
        return tokens

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 that a token stands for; it may begin or end inside a character. Marks stand
        for nothing. Raises LookupError for what is no token."""
        if not 0 <= token < len(self._bytes):
            raise LookupError(f"no token {token}")
        return self._bytes[token]

    def decode(self, tokens: Iterable[int]) -> str:
        """What is not UTF-8 becomes U+FFFD. Raises LookupError."""
        return b"".join(map(self.token_bytes, tokens)).decode("utf-8", "replace")

    def _encoded(self, piece: str) -> tuple[int, ...]:
        try:
            tokens = [MARKS + byte for byte in piece.encode()]
        except UnicodeEncodeError as error:
            raise TextInvalid("half of a surrogate pair") from error
        encoded = tuple(_merged(tokens, self._merged))
        if len(self._kept) >= _PIECES_KEPT_MAX:
            self._kept.clear()
        self._kept[piece] = encoded
        return encoded


def pieces(text: str) -> list[str]:
    """The text cut into what merges never cross: words with the space before them, single digits,
    single marks. Nothing is lost, and no piece has more than a bounded number of characters."""
    return _PIECES.findall(text)


def merge_pair(tokens: Sequence[int], pair: tuple[int, int], merged: int) -> list[int]:
    """`merged` in place of every `pair`, from the left."""
    made: list[int] = []
    for token in tokens:
        if made and token == pair[1] and made[-1] == pair[0]:
            made[-1] = merged
        else:
            made.append(token)
    return made


def _merged(tokens: list[int], merged: dict[tuple[int, int], int]) -> list[int]:
    while len(tokens) > 1:
        first = min(pairwise(tokens), key=lambda pair: merged.get(pair, _NEVER))
        if first not in merged:
            break
        tokens = merge_pair(tokens, first, merged[first])
    return tokens

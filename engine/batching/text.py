"""From tokens to text, as they come: characters that span tokens, and stop strings that do.

Guarantees: the pieces put together are the text of all tokens, with U+FFFD for what is no UTF-8, up
to the stop string that is complete first, and the same wherever token borders are. Nothing is given
out that could still become the start of a stop string.
"""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from typing import Final

from engine.batching.executor import TokenBytes

_DECODER: Final = getincrementaldecoder("utf-8")


class Vocabulary(dict[int, str | None]):
    """What tokens stand for by themselves; None: a part of a character. Filled as they occur."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        super().__init__()
        self.token_bytes = token_bytes

    def __missing__(self, token: int) -> str | None:
        try:
            text: str | None = self.token_bytes(token).decode()
        except UnicodeDecodeError:
            text = None
        self[token] = text
        return text


class Stops:
    """The stop strings of one request."""

    __slots__ = ("_strings", "first")

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = strings
        self.first = frozenset(string[0] for string in strings)
        """Text without any of these neither holds a stop string nor begins one."""

    def find(self, text: str) -> int | None:
        """Where the one begins that ends first, whatever else the text then becomes."""
        found = [
            (at + len(string), at) for string in self._strings if (at := text.find(string)) >= 0
        ]
        return min(found)[1] if found else None

    def settled(self, text: str) -> int:
        """How many characters of `text` cannot be part of a stop string, whatever follows.

        Call with text that holds none.
        """
        for at, character in enumerate(text):
            if character in self.first:
                rest = text[at:]
                if any(string.startswith(rest) for string in self._strings):
                    return at
        return len(text)


class Spelling:
    """The text of one answer, as far as its tokens do not stand for themselves."""

    __slots__ = ("_decoder", "_held", "_stops", "_vocabulary", "plain")

    def __init__(self, vocabulary: Vocabulary, stops: tuple[str, ...]) -> None:
        self._vocabulary = vocabulary
        self._stops = Stops(stops) if stops else None
        self._decoder: IncrementalDecoder | None = None
        self._held = ""
        self.plain: frozenset[str] | None = self._stops.first if self._stops else frozenset()
        """While nothing is held back: a whole token's text without any of these characters may be
        given out as it is. None while something is."""

    def add(self, token: int) -> tuple[str, bool]:
        """What may be given out now, and whether a stop string has ended the text."""
        text = self._held + self._decoded(token)
        return self._cut(text)

    def finish(self) -> str:
        """What was held back, now that nothing follows."""
        text = self._held
        if self._decoder is not None:
            text += self._decoder.decode(b"", final=True)
        self._held = ""
        self._decoder = None
        if self._stops is not None and (at := self._stops.find(text)) is not None:
            return text[:at]
        return text

    def _cut(self, text: str) -> tuple[str, bool]:
        if self._stops is None:
            self._hold("")
            return text, False
        at = self._stops.find(text)
        if at is not None:
            self._decoder = None
            self._hold("")
            return text[:at], True
        settled = self._stops.settled(text)
        self._hold(text[settled:])
        return text[:settled], False

    def _hold(self, text: str) -> None:
        self._held = text
        if text or self._decoder is not None:
            self.plain = None
        else:
            self.plain = self._stops.first if self._stops else frozenset()

    def _decoded(self, token: int) -> str:
        text = self._vocabulary[token]
        if self._decoder is None:
            if text is not None:
                return text
            self._decoder = _DECODER("replace")
        decoded = self._decoder.decode(self._vocabulary.token_bytes(token))
        if not self._decoder.getstate()[0]:
            self._decoder = None
        return decoded

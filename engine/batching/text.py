"""From tokens to text, as they come: characters that span tokens, and stop strings that do.

Guarantees: the pieces put together are the text of all tokens, with U+FFFD for what is no UTF-8, up
to the stop string that is complete first, and the same wherever token borders are. Nothing is given
out that could still become the start of a stop string.
"""

from __future__ import annotations

from codecs import IncrementalDecoder, getincrementaldecoder
from typing import Final

from engine.batching.executor import TokenBytes

STOPS_KEPT_MAX: Final = 64
"""Sets of stop strings whose plain tokens are remembered after their last request."""
_DECODER: Final = getincrementaldecoder("utf-8")
_NOTHING: Final[dict[int, str]] = {}


class Stops:
    """The stop strings of some requests, maybe none."""

    __slots__ = ("_strings", "plain")

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = strings
        self.plain: dict[int, str] = {}
        """Tokens met so far that stand for themselves: their text, after which nothing is held
        back if nothing was before. That most tokens are here is what makes stop strings cheap."""

    def find(self, text: str) -> tuple[int, str] | None:
        """Where the one begins that ends first, whatever else the text then becomes; and it."""
        found = [
            (at + len(string), at, string)
            for string in self._strings
            if (at := text.find(string)) >= 0
        ]
        return min(found)[1:] if found else None

    def settled(self, text: str) -> int:
        """How many characters of `text` cannot be part of a stop string, whatever follows.

        Call with text that holds none.
        """
        longest = max(map(len, self._strings), default=1) - 1
        for at in range(max(0, len(text) - longest), len(text)):
            if any(string.startswith(text[at:]) for string in self._strings):
                return at
        return len(text)


class Vocabulary:
    """What tokens stand for, and what stop strings make of them."""

    def __init__(self, token_bytes: TokenBytes) -> None:
        self.token_bytes = token_bytes
        self._texts: dict[int, str | None] = {}
        self._stops: dict[tuple[str, ...], Stops] = {}

    def text(self, token: int) -> str | None:
        """None for a part of a character. Raises as the detokenizer does."""
        if token not in self._texts:
            try:
                self._texts[token] = self.token_bytes(token).decode()
            except UnicodeDecodeError:
                self._texts[token] = None
        return self._texts[token]

    def stops(self, strings: tuple[str, ...]) -> Stops:
        """One object for equal strings, as long as they are in use and a while longer."""
        stops = self._stops.pop(strings, None) or Stops(strings)
        self._stops[strings] = stops
        if len(self._stops) > STOPS_KEPT_MAX:
            del self._stops[next(iter(self._stops))]
        return stops


class Spelling:
    """The text of one answer."""

    __slots__ = ("_decoder", "_held", "_stops", "_vocabulary", "plain", "stop")

    def __init__(self, vocabulary: Vocabulary, stops: tuple[str, ...]) -> None:
        self._vocabulary = vocabulary
        self._stops = vocabulary.stops(stops)
        self._decoder: IncrementalDecoder | None = None
        self._held = ""
        self.plain = self._stops.plain
        """Tokens whose text may now be given out as it is. Any other is to be added."""
        self.stop: str | None = None
        """The stop string that has ended the text."""

    def add(self, token: int) -> tuple[str, bool]:
        """What may be given out now, and whether a stop string has ended the text.

        Raises LookupError or ValueError for what is no token.
        """
        if self._decoder is None and not self._held:
            text = self._vocabulary.text(token)
            if text is not None:
                return self._cut(text, token)
        return self._cut(self._held + self._decoded(token), None)

    def finish(self) -> str:
        """What was held back, now that nothing follows."""
        text = self._held
        if self._decoder is not None:
            text += self._decoder.decode(b"", final=True)
        self._held = ""
        self._decoder = None
        found = self._stops.find(text)
        return text if found is None else text[: found[0]]

    def _cut(self, text: str, token: int | None) -> tuple[str, bool]:
        """`token` if it is all there is in the text."""
        found = self._stops.find(text)
        if found is not None:
            self._decoder, self._held = None, ""
            at, self.stop = found
            return text[:at], True
        settled = self._stops.settled(text)
        self._held = text[settled:]
        if token is not None and not self._held:
            self._stops.plain[token] = text
        pending = self._held or self._decoder is not None
        self.plain = _NOTHING if pending else self._stops.plain
        return text[:settled], False

    def _decoded(self, token: int) -> str:
        if self._decoder is None:
            text = self._vocabulary.text(token)
            if text is not None:
                return text
            self._decoder = _DECODER("replace")
        decoded = self._decoder.decode(self._vocabulary.token_bytes(token))
        if not self._decoder.getstate()[0]:
            self._decoder = None
        return decoded

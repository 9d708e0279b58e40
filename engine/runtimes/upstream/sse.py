"""Server-sent events of an upstream, parsed from bytes as they arrive. Pure.

Lines end where the standard says, at CR, LF or both, wherever the chunks were cut; the work is in
proportion to the bytes, however small the chunks. Only `data` counts: OpenAI's protocol gives no
meaning to the other fields. An event that no empty line ends is not given out.
"""

from __future__ import annotations

import re
from typing import Final

from engine.runtimes.upstream.errors import TooLarge

EVENT_BYTES_MAX: Final = 2**20

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class EventParser:
    """Feed it chunks; it gives the data of the events that are complete."""

    def __init__(self, *, event_bytes_max: int = EVENT_BYTES_MAX) -> None:
        self._event_bytes_max = event_bytes_max
        self._line = bytearray()
        self._held = b""
        self._data: list[bytes] = []
        self._event_bytes = 0
        self._is_first_line = True

    @property
    def is_between_events(self) -> bool:
        """Whether an end here would cut no event in two."""
        return not self._line and not self._data

    def feed(self, chunk: bytes) -> list[bytes]:
        """Raises TooLarge, after which the parser is of no more use."""
        events = []
        for line in self._lines(chunk):
            if line:
                self._take(line)
            elif self._data:
                events.append(b"\n".join(self._data))
                self._data, self._event_bytes = [], 0
        self._bound(self._event_bytes + len(self._line))
        return events

    def _lines(self, chunk: bytes) -> list[bytes]:
        text = self._held + chunk
        # A CR at the very end may be half of a CR LF: it waits for the next chunk.
        self._held = b"\r" if text.endswith(b"\r") else b""
        *lines, rest = _LINE_END.split(text[:-1] if self._held else text)
        if lines and self._line:
            lines[0] = bytes(self._line) + lines[0]
            self._line.clear()
        self._line += rest
        return lines

    def _take(self, line: bytes) -> None:
        if self._is_first_line:
            line = line.removeprefix(_BYTE_ORDER_MARK)
            self._is_first_line = False
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
            self._event_bytes += len(line)
            self._bound(self._event_bytes)

    def _bound(self, size_bytes: int) -> None:
        if size_bytes > self._event_bytes_max:
            raise TooLarge("an event of the upstream's stream", self._event_bytes_max)

"""Server-sent events, parsed from bytes as they arrive.

Lines end where the standard says, at CR, LF or both. Splitting text into lines the way Python does
would also break at characters like U+2028, which JSON may hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import msgspec

_LINE_END: Final = re.compile(rb"\r\n|\r|\n")


class ServerSentEvent(msgspec.Struct, frozen=True, kw_only=True):
    """One dispatched event. `id` is the last one that the stream named, "" before the first."""

    id: str
    event: str
    data: bytes


class Parser:
    """Feed it chunks cut anywhere; it gives the events that are complete."""

    def __init__(self) -> None:
        self._rest = b""
        self._id = ""
        self._event = ""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[ServerSentEvent]:
        for line in self._lines(chunk):
            if line:
                self._take(line)
            else:
                yield from self._dispatch()

    def _lines(self, chunk: bytes) -> list[bytes]:
        text = self._rest + chunk
        # A CR at the very end may be half of a CR LF: it waits for the next chunk.
        ready = text[:-1] if text.endswith(b"\r") else text
        lines = _LINE_END.split(ready)
        self._rest = lines.pop() + text[len(ready) :]
        return lines

    def _take(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        match name:
            case b"data":
                self._data.append(value)
            case b"id":
                self._id = value.decode()
            case b"event":
                self._event = value.decode()

    def _dispatch(self) -> Iterator[ServerSentEvent]:
        if self._data:
            data = b"\n".join(self._data)
            yield ServerSentEvent(id=self._id, event=self._event or "message", data=data)
        self._event = ""
        self._data = []

"""An answer as Server-Sent Events. Each chunk is encoded once, behind an envelope that was encoded
before the first."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from engine.runtimes.documents import ENVELOPE, Kind, Usage
from handlers.http.openai.answers import Envelope, chunks_of, is_chunk
from handlers.http.openai.errors import error_document

DONE: Final = b"data: [DONE]\n\n"
_APART: Final = ENVELOPE | {"usage"}
"""Members of chunks that are not sent with them."""
_encode: Final = msgspec.json.Encoder().encode


class Frames:
    """The frames of one stream, in order: `of` each chunk, then `end` or `failure`. None of them
    tells the tokens."""

    __slots__ = ("_before", "_kind")

    def __init__(self, kind: Kind, envelope: Envelope) -> None:
        self._kind = kind
        self._before = b"data: " + _encode(envelope)[:-1] + b","

    def of(self, answered: Any) -> bytes:
        """Of a chunk, or of the outputs of a version that does not stream; maybe none."""
        if is_chunk(answered):
            return self._frame(answered)
        return b"".join(map(self._frame, chunks_of(self._kind, answered)))

    def end(self) -> bytes:
        """Of a stream that is complete."""
        return DONE

    def failure(self, error: Exception) -> bytes:
        """Of a stream that is not: clients raise."""
        return b"data: " + _encode(error_document(error)) + b"\n\n"

    def _frame(self, chunk: dict[str, Any]) -> bytes:
        if not _APART.isdisjoint(chunk):
            if chunk.get("usage") and not chunk["choices"]:
                return b""
            chunk = {name: each for name, each in chunk.items() if name not in _APART}
        return self._before + _encode(chunk)[1:] + b"\n\n"


class FramesWithUsage(Frames):
    """With a last chunk that tells the tokens, as the version counts them; `usage` is null in all
    others."""

    __slots__ = ("_before_usage", "_usage")

    def __init__(self, kind: Kind, envelope: Envelope) -> None:
        super().__init__(kind, envelope)
        self._before_usage = self._before
        self._before += b'"usage":null,'
        self._usage: Any = Usage()

    def end(self) -> bytes:
        told = {"choices": [], "usage": self._usage}
        return self._before_usage + _encode(told)[1:] + b"\n\n" + DONE

    def _frame(self, chunk: dict[str, Any]) -> bytes:
        self._usage = chunk.get("usage") or self._usage
        return super()._frame(chunk)

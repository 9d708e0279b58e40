"""Streams as clients see them: when each chunk came."""

from __future__ import annotations

import time
from typing import Final

from switchback.bench.http import Answer, Connection

_HEAD_END: Final = b"\r\n\r\n"
_CHUNKED: Final = b"transfer-encoding: chunked"
_CHUNK: Final = b"data: {"
_END: Final = b"0\r\n\r\n"
_DONE: Final = b"data: [DONE]"
_ENDED_EARLY: Final = 599


class StreamConnection(Connection):
    """One request at a time, whose answer is a stream; it counts if it has said `[DONE]`."""

    def __init__(self) -> None:
        super().__init__()
        self._arrivals_s: list[float] = []
        self._scanned = 0

    def begin(self) -> list[float]:
        """When the chunks of the next stream come, by the performance counter."""
        self._arrivals_s = []
        self._scanned = 0
        return self._arrivals_s

    def data_received(self, data: bytes) -> None:
        received = self._received + data
        head_end = received.find(_HEAD_END)
        if head_end < 0 or _CHUNKED not in received[:head_end].lower():
            super().data_received(data)
            return
        self._received = received
        now_s = time.perf_counter()
        while (found := self._received.find(_CHUNK, self._scanned)) >= 0:
            self._arrivals_s.append(now_s)
            self._scanned = found + len(_CHUNK)
        if self._received.endswith(_END):
            self._settle_stream()

    def _settle_stream(self) -> None:
        received, self._received = self._received, b""
        head, _, body = received.partition(_HEAD_END)
        status = int(head[9:12])
        if status == 200 and _DONE not in body:
            status = _ENDED_EARLY
        self._settle(Answer(status, head, body))

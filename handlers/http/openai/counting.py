"""What is counted of a stream, in one place and once: its tokens, and how it ended."""

from __future__ import annotations

import time
from typing import Any

from handlers.http.inference import LEFT
from handlers.http.inference_ports import StreamedInference
from handlers.http.metering import HttpMetrics
from handlers.http.stream_times import StreamTimes


class Counting:
    """Of one stream. Made when it is asked for; the first end that it is told of counts."""

    __slots__ = ("_endpoint", "_is_over", "_metrics", "_stream", "_tenant", "_times")

    def __init__(self, metrics: HttpMetrics, *, tenant: str, endpoint: str) -> None:
        self._metrics = metrics
        self._tenant = tenant
        self._endpoint = endpoint
        self._times = StreamTimes(time.perf_counter())
        self._stream: StreamedInference | None = None
        self._is_over = False

    def began(self, stream: StreamedInference) -> None:
        """Its first chunk is there."""
        self._stream = stream

    def chunk(self, chunk: Any) -> None:
        """To be called before it is sent."""
        self._times.chunk(chunk)

    def ended(self) -> None:
        """Every chunk was sent."""
        self._end("ok", "")

    def failed(self, error: Exception) -> None:
        self._end(getattr(error, "code", "internal"), getattr(error, "version", ""))

    def left(self) -> None:
        """The client did not wait for its end."""
        self._end(LEFT, "")

    def _end(self, code: str, version: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self._stream is None:
            self._metrics.inference_failed(self._tenant, self._endpoint, version, code)
        else:
            self._metrics.streamed(self._tenant, self._endpoint, self._stream, self._times, code)

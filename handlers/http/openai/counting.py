"""What is counted of a stream, in one place: that it began, or how it failed before."""

from __future__ import annotations

from handlers.http.inference import LEFT
from handlers.http.metering import HttpMetrics
from handlers.http.ports import StreamedInference


class Counting:
    """Of one stream."""

    __slots__ = ("_began", "_endpoint", "_metrics", "_tenant")

    def __init__(self, metrics: HttpMetrics, *, tenant: str, endpoint: str) -> None:
        self._metrics = metrics
        self._tenant = tenant
        self._endpoint = endpoint
        self._began = False

    def began(self, stream: StreamedInference) -> None:
        """Its first chunk is there."""
        self._began = True
        overhead_s = stream.overhead_ms / 1000
        self._metrics.inferred(self._tenant, self._endpoint, stream.version, overhead_s)

    def failed(self, error: Exception) -> None:
        if not self._began:
            code, version = getattr(error, "code", "internal"), getattr(error, "version", "")
            self._metrics.inference_failed(self._tenant, self._endpoint, version, code)

    def left(self) -> None:
        """The client did not wait for its end."""
        if not self._began:
            self._metrics.inference_failed(self._tenant, self._endpoint, "", LEFT)

"""One request to an upstream: what it asks, and the bytes that are sent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from engine.runtimes.documents import Kind
from engine.runtimes.upstream.config import UpstreamConfig

PATHS: Final[Mapping[Kind, str]] = {
    "chat": "chat/completions",
    "text": "completions",
    "embeddings": "embeddings",
}
JSON_TYPE: Final = "application/json"
STREAM_TYPE: Final = "text/event-stream"

_encode = msgspec.json.Encoder().encode


class Call(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the gateway's client made it."""

    kind: Kind
    body: Mapping[str, Any]
    """Sent as it is, except `model`, `stream` and `stream_options`: these are the gateway's."""
    request_id: str | None = None
    """Sent as `X-Request-Id`, so that both sides' logs can be joined."""
    timeout_s: float | None = None
    """What is left to the caller, when it is less than the version's own `timeout_s`."""
    asked_s: float | None = None
    """What the request itself allows, when it is less than both."""
    patience_s: float | None = None
    """How long the caller waits for a stream to begin, and from each piece to the next, when it is
    less than the version may take."""


def whole_payload(call: Call, config: UpstreamConfig) -> bytes:
    """Asks for one JSON document."""
    body = {**call.body, "model": config.model}
    body.pop("stream", None)
    body.pop("stream_options", None)
    return _encode(body)


def stream_payload(call: Call, config: UpstreamConfig) -> bytes:
    """Asks for chunks. Embeddings have none."""
    assert call.kind != "embeddings"
    body = {**call.body, "model": config.model, "stream": True}
    body.pop("stream_options", None)
    if config.stream_usage:
        body["stream_options"] = {"include_usage": True}
    return _encode(body)


def headers_of(call: Call, *, accept: str, key: str | None) -> dict[str, str]:
    """Of a request with a JSON body."""
    headers = {**probe_headers(key=key), "Accept": accept, "Content-Type": JSON_TYPE}
    if call.request_id is not None:
        assert call.request_id.isascii() and call.request_id.isprintable()
        headers["X-Request-Id"] = call.request_id
    return headers


def probe_headers(*, key: str | None) -> dict[str, str]:
    """Of any request. `identity`: a compressed answer could be small on the wire and without bound
    in memory."""
    headers = {"Accept": JSON_TYPE, "Accept-Encoding": "identity", "User-Agent": "switchback"}
    if key is not None:
        headers["Authorization"] = f"Bearer {key}"
    return headers

"""What the `config` of a version on an upstream may hold. Pure: commands check versions by it."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta
from yarl import URL

_URL: Final = r"\Ahttps?://([A-Za-z0-9._\-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[^\s?#@\\]*)?\Z"

Seconds = Annotated[float, Meta(gt=0, le=3_600)]


class UpstreamConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a version runs, and how long and how often it is asked.

    Every limit in seconds is one phase of one request; `timeout_s` bounds them all together, with
    the pauses between attempts and, of a stream, with the time its reader takes.
    """

    url: Annotated[str, Meta(pattern=_URL, max_length=2_048)]
    """The base, as OpenAI's clients take it: `http://127.0.0.1:8000/v1`; without path it is `/v1`.
    No user, password, query or fragment: secrets are named by `api_key_env`, never written."""
    model: Annotated[str, Meta(min_length=1, max_length=500)]
    """What the upstream calls it."""
    api_key_env: Annotated[str, Meta(pattern=r"\A[A-Za-z_][A-Za-z0-9_]{0,127}\Z")] | None = None
    """The environment variable that holds the key; read at each request."""
    timeout_s: Seconds = 600.0
    connect_timeout_s: Seconds = 5.0
    """Name, connection and TLS."""
    first_byte_timeout_s: Seconds = 120.0
    """To the head of an answer, and of a stream to its first chunk. An upstream sends a whole
    answer when it has computed all of it."""
    chunk_timeout_s: Seconds = 30.0
    """Between two pieces of an answer."""
    attempts_max: Annotated[int, Meta(ge=1, le=10)] = 3
    in_flight_max: Annotated[int, Meta(ge=1, le=10_000)] = 256
    """Requests at the same time, of one gateway; beyond it they are refused, not queued."""
    answer_bytes_max: Annotated[int, Meta(ge=1_024, le=2**30)] = 64 * 2**20
    """Of a whole answer, and of a stream altogether."""
    stream_usage: bool = True
    """Ask for the tokens used at the end of a stream. For an upstream that refuses the question
    (`stream_options`), False."""

    def __post_init__(self) -> None:
        """Raises ValueError, as `msgspec.convert` expects, for an address that is none."""
        if not URL(self.url).port:
            raise ValueError("url: port 0 is no port")

    @property
    def base(self) -> URL:
        """What the paths of the protocol are appended to."""
        url = URL(self.url)
        return url / "v1" if url.path == "/" else url

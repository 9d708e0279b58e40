"""The third act's client: completions of a language model, streamed and timed."""

from __future__ import annotations

import time
from typing import Any, Final

import httpx
import msgspec

from switchback.client.sse import Parser

REQUEST_SECONDS: Final = 60.0
_END: Final = b"[DONE]"


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """One answer. Times are seconds by the performance counter."""

    version: str
    text: str
    tokens: int
    """Of the answer."""
    cached_tokens: int
    """Of the prompt, found computed."""
    asked: float
    first: float
    """When its first piece came."""
    ended: float

    @property
    def first_token_ms(self) -> float:
        return (self.first - self.asked) * 1_000


class Completions:
    """Asks one endpoint at `/v1/completions`."""

    def __init__(self, url: str, *, key: str, endpoint: str) -> None:
        self._endpoint = endpoint
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=REQUEST_SECONDS,
            limits=httpx.Limits(max_connections=None),
        )

    async def __aenter__(self) -> Completions:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def ask(self, prompt: str, **parameters: Any) -> Told:
        """Raises httpx.HTTPError for anything but a whole stream."""
        body = {
            "model": self._endpoint,
            "prompt": prompt,
            "stream": True,
            "stream_options": {"include_usage": True},
            **parameters,
        }
        asked, first = time.perf_counter(), 0.0
        chunks: list[Any] = []
        async with self._http.stream("POST", "/v1/completions", json=body) as response:
            response.raise_for_status()
            parser = Parser()
            async for data in response.aiter_raw():
                first = first or time.perf_counter()
                chunks += [each.data for each in parser.feed(data)]
        if not chunks or chunks.pop() != _END:
            raise httpx.RemoteProtocolError("the stream ended before its end")
        return _told(response, chunks, asked=asked, first=first)


def _told(response: httpx.Response, chunks: list[bytes], *, asked: float, first: float) -> Told:
    decoded = [msgspec.json.decode(chunk) for chunk in chunks]
    usage = decoded[-1]["usage"]
    return Told(
        version=response.headers["switchback-version"],
        text="".join(choice["text"] for chunk in decoded for choice in chunk["choices"]),
        tokens=usage["completion_tokens"],
        cached_tokens=usage["prompt_tokens_details"]["cached_tokens"],
        asked=asked,
        first=first,
        ended=time.perf_counter(),
    )

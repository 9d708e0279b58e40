"""One attempt: a request on the wire, and its answer checked as far as its head goes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import aiohttp

from engine.runtimes.upstream.calls import (
    JSON_TYPE,
    PATHS,
    STREAM_TYPE,
    Call,
    headers_of,
    stream_payload,
    whole_payload,
)
from engine.runtimes.upstream.chunks import ChunkReader
from engine.runtimes.upstream.config import UpstreamConfig
from engine.runtimes.upstream.errors import HalfAnswered, Malformed, TooLarge, UpstreamFailed
from engine.runtimes.upstream.phases import Phases
from engine.runtimes.upstream.refusals import REFUSAL_BYTES_MAX, refusal_of
from engine.runtimes.upstream.stream import Arriving
from engine.runtimes.upstream.wire import Wire

REFUSAL_SECONDS: Final = 0.5
"""How long the body of an error status is waited for: the status says most of it."""

_MEDIA_TYPE: Final = re.compile(r"[a-z0-9]{1,40}/[a-z0-9.+\-]{1,60}")


class Attempts:
    """How attempts are made at one upstream."""

    def __init__(self, config: UpstreamConfig, wire: Wire, *, now: Callable[[], datetime]) -> None:
        self._config = config
        self._wire = wire
        self._now = now

    async def whole(self, call: Call, phases: Phases, key: str | None) -> bytes:
        """The body of a success that says it is JSON. Raises UpstreamFailed."""
        payload = whole_payload(call, self._config)
        headers = headers_of(call, accept=JSON_TYPE, key=key)
        response = await self._head(PATHS[call.kind], payload, headers, phases)
        try:
            return await self._body(response, phases)
        finally:
            response.close()

    async def streamed(self, call: Call, phases: Phases, key: str | None) -> Arriving:
        """A stream whose first chunk has arrived. Raises UpstreamFailed."""
        payload = stream_payload(call, self._config)
        headers = headers_of(call, accept=STREAM_TYPE, key=key)
        response = await self._head(PATHS[call.kind], payload, headers, phases)
        reader = ChunkReader(stream_bytes_max=self._config.answer_bytes_max)
        arriving = Arriving(response, reader, self._wire, phases)
        try:
            await arriving.begin()
        except BaseException:
            arriving.close()
            raise
        return arriving

    async def _head(
        self, path: str, payload: bytes, headers: Mapping[str, str], phases: Phases
    ) -> aiohttp.ClientResponse:
        phases.begin_attempt()
        response = await phases.first_byte(self._wire.post(path, payload, headers))
        try:
            if response.status != 200:
                secret = headers.get("Authorization", "").removeprefix("Bearer ") or None
                raise await self._refusal(response, secret, phases)
            _require_type(response, headers["Accept"])
        except BaseException:
            response.close()
            raise
        return response

    async def _refusal(
        self, response: aiohttp.ClientResponse, secret: str | None, phases: Phases
    ) -> UpstreamFailed:
        body = await phases.if_soon(self._begin_of_body(response), REFUSAL_SECONDS)
        return refusal_of(
            response.status,
            body or b"",
            retry_after=response.headers.get("Retry-After"),
            secret=secret,
            now=self._now(),
        )

    async def _begin_of_body(self, response: aiohttp.ClientResponse) -> bytes:
        body = b""
        while not response.content.at_eof() and len(body) < REFUSAL_BYTES_MAX:
            body += await self._wire.piece(response)
        return body[:REFUSAL_BYTES_MAX]

    async def _body(self, response: aiohttp.ClientResponse, phases: Phases) -> bytes:
        bytes_max = self._config.answer_bytes_max
        body = bytearray()
        if (response.content_length or 0) > bytes_max:
            raise TooLarge("the upstream's answer", bytes_max)
        while not response.content.at_eof():
            body += await phases.next_piece(self._wire.piece(response))
            if len(body) > bytes_max:
                raise TooLarge("the upstream's answer", bytes_max)
        if not body:
            raise HalfAnswered("the upstream's answer is empty")
        return bytes(body)


def _require_type(response: aiohttp.ClientResponse, wanted: str) -> None:
    if response.headers.get("Content-Encoding", "identity").strip().lower() != "identity":
        raise Malformed("the upstream's answer is compressed, which it was not asked for")
    given, _, _ = response.headers.get("Content-Type", "").partition(";")
    given = given.strip().lower()
    if given != wanted:
        named = given if _MEDIA_TYPE.fullmatch(given) else "of an unknown type"
        raise Malformed(f"the upstream's answer is {named} instead of {wanted}")

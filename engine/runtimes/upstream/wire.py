"""HTTP to one upstream: connections, requests, and the errors of both in our words.

Guarantees: nothing is followed (redirects), kept (cookies) or taken from the environment (proxies);
what is read is bounded by who reads it, and what is not read stays in the kernel; a response that
is closed before its end takes its connection with it at once. No error carries the library's own,
for those hold headers.
"""

from __future__ import annotations

import errno
from collections.abc import AsyncIterator, Mapping
from typing import Final

import aiohttp
import yarl

from engine.runtimes.upstream.config import UpstreamConfig
from engine.runtimes.upstream.errors import (
    Closed,
    HalfAnswered,
    Malformed,
    NotAnswered,
    TimedOut,
    Unreachable,
    UpstreamFailed,
)

IDLE_SECONDS: Final = 15.0
"""After which an idle connection is closed."""
SLICE_BYTES: Final = 256 * 2**10
"""Larger payloads are sent in slices of this size: in one they would hold up the event loop."""

_CONNECT_ERRORS: Final = {
    errno.ECONNREFUSED: "refused the connection",
    errno.EHOSTUNREACH: "is not reachable",
    errno.ENETUNREACH: "is not reachable",
    errno.EMFILE: "got no connection: too many files are open here",
}


class Wire:
    """The connections to one upstream. To be made in a running event loop."""

    def __init__(self, config: UpstreamConfig) -> None:
        self._base = str(config.base).rstrip("/")
        self._connect_s = config.connect_timeout_s
        self._urls: dict[str, yarl.URL] = {}
        # No limit here: the calls in flight are limited before they come to a connection.
        self._connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, connect=self._connect_s),
            auto_decompress=False,
            trust_env=False,
        )

    async def post(
        self, path: str, payload: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """The head of the answer; the caller closes it. Raises UpstreamFailed."""
        sized = {**headers, "Content-Length": str(len(payload))}
        data = payload if len(payload) <= SLICE_BYTES else _slices(payload)
        try:
            return await self._session.post(
                self._url(path), data=data, headers=sized, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            failure = self._before_answer(error)
        raise failure

    async def get(self, path: str, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """As `post`."""
        try:
            return await self._session.get(self._url(path), headers=headers, allow_redirects=False)
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            failure = self._before_answer(error)
        raise failure

    async def piece(self, response: aiohttp.ClientResponse) -> bytes:
        """What has arrived of the body, at least a byte; nothing at its end. Raises HalfAnswered
        and Closed."""
        try:
            return await response.content.readany()
        except (aiohttp.ClientError, OSError, RuntimeError):
            pass  # RuntimeError is what the library says of a connection that was lost before
        if self._session.closed:
            raise Closed()
        raise HalfAnswered("the upstream's answer ended in the middle")

    async def close(self) -> None:
        """No request can be sent any more. Those that wait for an answer may wait on: the library
        wakes them not in every phase."""
        await self._session.close()

    def _url(self, path: str) -> yarl.URL:
        url = self._urls.get(path)
        if url is None:
            url = self._urls[path] = yarl.URL(f"{self._base}/{path}")
        return url

    def _before_answer(self, error: Exception) -> UpstreamFailed:
        if self._session.closed:
            return Closed()
        return failure_before_answer(error, connect_s=self._connect_s)


def failure_before_answer(error: Exception, *, connect_s: float) -> UpstreamFailed:
    """What a request failed of that has no head of an answer yet."""
    match error:
        case aiohttp.ConnectionTimeoutError():
            return TimedOut("connect", connect_s)
        case aiohttp.ClientConnectorDNSError() | UnicodeError():
            return Unreachable("the upstream's name is not known")
        case aiohttp.ClientConnectorCertificateError():
            return Unreachable("the upstream's certificate is not valid")
        case aiohttp.ClientSSLError():
            return Unreachable("the upstream does not speak TLS as it should")
        case aiohttp.ClientConnectorError():
            why = _CONNECT_ERRORS.get(error.os_error.errno or 0, "could not be connected to")
            return Unreachable(f"the upstream {why}")
        case aiohttp.ClientResponseError():
            return Malformed("the upstream's answer is not HTTP")
        case aiohttp.ServerDisconnectedError() if not isinstance(error.message, str):
            return HalfAnswered("the upstream's answer ended in its head")
        case _:
            return NotAnswered("the upstream ended the connection before it answered")


async def _slices(payload: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, len(payload), SLICE_BYTES):
        yield payload[begin : begin + SLICE_BYTES]

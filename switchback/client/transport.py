"""Requests to a gateway, repeated where that is safe.

Repeated: what was lost on the way, and what the server asks to send again (503 with codes
`unavailable` or `overloaded`, 429), with growing pauses, until `RETRY_SECONDS` were spent in them.
That outlasts the election of a new leader of the log. Not repeated: any other refusal, and what the
server has taken but not answered in time (httpx.ReadTimeout; a command may have happened).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, TypeAlias
from uuid import uuid4

import httpx
import msgspec

from switchback.client.problem import Problem, problem_in
from switchback.client.sse import Parser, ServerSentEvent

JSON: TypeAlias = dict[str, Any]
Sleep: TypeAlias = Callable[[float], Awaitable[None]]

RETRY_SECONDS: Final = 20.0
_PAUSE_SECONDS_MIN: Final = 0.05
_PAUSE_SECONDS_MAX: Final = 2.0
_CONNECT_SECONDS: Final = 5.0
_READ_SECONDS: Final = 30.0
_STREAM_SILENCE_SECONDS: Final = 60.0  # servers send a sign of life every 15 s
_COMES_BACK: Final = frozenset({"unavailable", "overloaded", "rate_limited"})


class Pauses:
    """How long to wait between attempts, and when to give up."""

    def __init__(self, sleep: Sleep) -> None:
        self._sleep = sleep
        self.restart()

    def restart(self) -> None:
        """There was progress."""
        self._next_s = _PAUSE_SECONDS_MIN
        self._waited_s = 0.0

    async def wait_or_raise(self, error: Exception) -> None:
        """Raises `error` when it is final or the time is spent."""
        wait_s = max(self._next_s, _asked_wait_s(error))
        if not _may_pass(error) or self._waited_s + wait_s > RETRY_SECONDS:
            raise error
        await self._sleep(wait_s)
        self._waited_s += wait_s
        self._next_s = min(self._next_s * 2, _PAUSE_SECONDS_MAX)


class Transport:
    """One gateway and one key."""

    def __init__(
        self,
        *,
        url: str,
        key: str,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {key}"},
            timeout=httpx.Timeout(_READ_SECONDS, connect=_CONNECT_SECONDS),
            transport=transport,
        )
        self._sleep = sleep
        self.min_position = 0

    async def close(self) -> None:
        await self._http.aclose()

    async def read(self, path: str, **params: Any) -> JSON:
        """Raises Problem, httpx.TransportError."""
        request = self._http.build_request(
            "GET", path, params=present(params), headers=self._minimum()
        )
        return _decoded(await self._send(request))

    async def command(
        self, method: str, path: str, body: JSON | None = None, *, answer_seconds: float = 0.0
    ) -> JSON:
        """`answer_seconds` is how long the command itself may take. Raises as `read` does."""
        request = self._http.build_request(
            method,
            path,
            json=body,
            headers={"Idempotency-Key": str(uuid4())},
            timeout=httpx.Timeout(_READ_SECONDS + answer_seconds, connect=_CONNECT_SECONDS),
        )
        response = await self._send(request)
        position = int(response.headers.get("Switchback-Position", 0))
        self.min_position = max(self.min_position, position)
        return _decoded(response)

    async def ask(self, path: str, body: JSON) -> JSON:
        """A question that needs a body: a read by POST."""
        request = self._http.build_request("POST", path, json=body, headers=self._minimum())
        return _decoded(await self._send(request))

    async def once(self, path: str, body: JSON, *, answer_seconds: float) -> httpx.Response:
        """A POST that is never repeated."""
        timeout = httpx.Timeout(answer_seconds, connect=_CONNECT_SECONDS)
        response = await self._http.post(path, json=body, timeout=timeout)
        if response.is_error:
            raise problem_in(response)
        return response

    async def follow(
        self, path: str, *, after: int, entity: str | None
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """A stream without end; taken up where it was when the connection is lost."""
        pauses = Pauses(self._sleep)
        last_id = str(after)
        while True:
            try:
                async with aclosing(self._stream(path, last_id, entity)) as arriving:
                    async for event in arriving:
                        yield event
                        last_id = event.id or last_id
                        pauses.restart()
                raise httpx.RemoteProtocolError("the server ended the stream")
            except httpx.ReadTimeout:
                await pauses.wait_or_raise(httpx.RemoteProtocolError("the stream fell silent"))
            except (httpx.TransportError, Problem) as error:
                await pauses.wait_or_raise(error)

    async def _stream(
        self, path: str, last_id: str, entity: str | None
    ) -> AsyncGenerator[ServerSentEvent, None]:
        parser = Parser()
        async with self._http.stream(
            "GET",
            path,
            params=present({"entity": entity}),
            headers={"Last-Event-ID": last_id},
            timeout=httpx.Timeout(_STREAM_SILENCE_SECONDS, connect=_CONNECT_SECONDS),
        ) as response:
            if response.is_error:
                await response.aread()
                raise problem_in(response)
            async for chunk in response.aiter_bytes():
                for event in parser.feed(chunk):
                    yield event

    async def _send(self, request: httpx.Request) -> httpx.Response:
        pauses = Pauses(self._sleep)
        while True:
            try:
                response = await self._http.send(request)
                if response.is_error:
                    raise problem_in(response)
                return response
            except (httpx.TransportError, Problem) as error:
                await pauses.wait_or_raise(error)

    def _minimum(self) -> Mapping[str, str]:
        if not self.min_position:
            return {}
        return {"Switchback-Min-Position": str(self.min_position)}


def present(members: Mapping[str, Any]) -> JSON:
    """Without those that are None."""
    return {name: value for name, value in members.items() if value is not None}


def _decoded(response: httpx.Response) -> JSON:
    return msgspec.json.decode(response.content, type=dict[str, Any])


def _may_pass(error: Exception) -> bool:
    if isinstance(error, Problem):
        return error.code in _COMES_BACK
    return not isinstance(error, httpx.ReadTimeout | httpx.WriteTimeout)


def _asked_wait_s(error: Exception) -> float:
    return (error.retry_after_s or 0.0) if isinstance(error, Problem) else 0.0

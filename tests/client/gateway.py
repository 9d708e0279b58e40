"""A gateway of a few lines, in process: it happens to answer whatever the test tells it to."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, TypeAlias
from urllib.parse import parse_qsl

import httpx
import msgspec


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    status: int = 200
    headers: dict[str, str] = {}
    body: Any = {}


Outcome: TypeAlias = Answer | Exception


def problem(code: str, status: int, **more: Any) -> Answer:
    headers = {"Retry-After": more.pop("retry_after")} if "retry_after" in more else {}
    body = {"type": f"urn:{code}", "title": code, "status": status, "code": code, **more}
    return Answer(status=status, headers=headers, body=body)


def events_answer(*frames: str) -> Answer:
    return Answer(headers={"content-type": "text/event-stream"}, body="".join(frames).encode())


class Gateway:
    """Answers in the order that it was told, and remembers what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._outcomes: deque[Outcome] = deque()

    def will(self, *outcomes: Outcome) -> None:
        self._outcomes.extend(outcomes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.requests.append(await _request(scope, receive))
        outcome = self._outcomes.popleft()
        if isinstance(outcome, Exception):
            raise outcome  # reaches the client as a lost connection
        body = outcome.body
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = [(name.lower().encode(), v.encode()) for name, v in outcome.headers.items()]
        await send({"type": "http.response.start", "status": outcome.status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    @property
    def last(self) -> Request:
        return self.requests[-1]

    @property
    def transport(self) -> httpx.ASGITransport:
        return httpx.ASGITransport(app=self)


async def _request(scope: Mapping[str, Any], receive: Any) -> Request:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return Request(
        method=scope["method"],
        path=scope["raw_path"].decode(),
        query=dict(parse_qsl(scope["query_string"].decode())),
        headers={name.decode(): value.decode() for name, value in scope["headers"]},
        body=msgspec.json.decode(body) if body else None,
    )

"""Texts through `/v1/completions` from a built-in model: what is asked, and what must come back."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Final

import msgspec

from switchback.bench.http import Answer, Connection, RequestFailed, Target, connected, connected_as
from switchback.bench.load import Seen, flood
from switchback.bench.streams import StreamConnection

MODEL: Final = "facts-2"
ENDPOINT: Final = "facts"
PATH: Final = "/v1/completions"


class _Usage(msgspec.Struct):
    completion_tokens: int


class _Completion(msgspec.Struct):
    usage: _Usage


_completion: Final = msgspec.json.Decoder(_Completion)


class Streamed(msgspec.Struct, frozen=True, kw_only=True):
    """What streams saw that began together."""

    seen: Seen
    gaps_s: list[float]
    """From text to further text in a stream; of one that came all at once, the whole time."""
    firsts_s: list[float]
    """From a request to its first chunk."""


async def make_endpoint(target: Target) -> None:
    """One of which the model takes all traffic, loaded and warm when this returns."""
    versions = f"/api/v1/models/{ENDPOINT}/versions"
    of_facts: dict[str, Any] = {
        "runtime": "language-model",
        "artifact": {"uri": f"builtin://{MODEL}"},
    }
    async with connected(target, 1) as [connection]:
        for method, path, body in (
            ("POST", "/api/v1/models", {"name": ENDPOINT}),
            ("POST", versions, {"version": "1.0.0", "runtime": "echo"}),
            ("POST", versions, {"version": "2.0.0", **of_facts}),
            ("PUT", f"/api/v1/endpoints/{ENDPOINT}", {"model": ENDPOINT, "version": "1.0.0"}),
            ("POST", f"/api/v1/endpoints/{ENDPOINT}/swap?wait=true", {"to": "2.0.0"}),
        ):
            await connection.ask(target.request(method, path, body))


async def answers(target: Target, prompts: Sequence[str], tokens: int, connections: int) -> Seen:
    """Whole answers. One that has not exactly `tokens` tokens has failed."""
    requests = [target.request("POST", PATH, _body(prompt, tokens)) for prompt in prompts]

    async def work(connection: Connection, number: int) -> Answer:
        answer = await connection.ask(requests[number])
        if _completion.decode(answer.body).usage.completion_tokens != tokens:
            raise RequestFailed(requests[number], answer)
        return answer

    async with connected(target, connections) as opened:
        return await flood(opened, len(requests), work)


async def streams(target: Target, prompts: Sequence[str], tokens: int) -> Streamed:
    """All at once. One that has not exactly `tokens` tokens has failed."""
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    requests = [target.request("POST", PATH, _body(prompt, tokens) | asked) for prompt in prompts]
    told = b'"completion_tokens":%d,' % tokens
    gaps_s: list[float] = []
    firsts_s: list[float] = []

    async def stream(connection: Connection, number: int) -> Answer:
        assert isinstance(connection, StreamConnection)
        began = time.perf_counter()
        arrivals_s = connection.begin()
        answer = await connection.ask(requests[number])
        if told not in answer.body:
            raise RequestFailed(requests[number], answer)
        firsts_s.append(arrivals_s[0] - began)
        came_s = sorted(set(arrivals_s))
        gaps_s.extend(later - earlier for earlier, later in pairwise(came_s))
        if len(came_s) == 1:
            gaps_s.append(came_s[0] - began)
        return answer

    async with connected_as(StreamConnection, target, len(requests)) as opened:
        seen = await flood(opened, len(requests), stream)
    return Streamed(seen=seen, gaps_s=gaps_s, firsts_s=firsts_s)


def _body(prompt: str, tokens: int) -> dict[str, Any]:
    return {"model": ENDPOINT, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}

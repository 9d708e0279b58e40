"""Inferences whose answers a test writes down, and which tell what became of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from events import Position


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What both kinds of answers prove."""

    request_id: str
    version: str = "1.0.0"
    position: Position = 7
    receipt: str = "r.1"
    rule: str | None = "büro hours\n"
    overhead_ms: float = 0.25
    attempts: int = 2


class Answer(Proof, frozen=True, kw_only=True):
    outputs: Any


class Stream(Proof, frozen=True, kw_only=True):
    chunks: Chunks


class Chunks:
    """What a stream says, and whether more of it is there."""

    def __init__(self, first: tuple[Any, bool], rest: AsyncIterator[tuple[Any, bool]]) -> None:
        self._first = first
        self._rest = rest
        self.is_followed = False

    async def __aiter__(self) -> AsyncIterator[Any]:
        chunk, self.is_followed = self._first
        yield chunk
        async for chunk, is_followed in self._rest:
            self.is_followed = is_followed
            yield chunk


class Voices:
    """An endpoint answers what `says` holds for it: outputs, an exception, or for streams a
    sequence of chunks and exceptions; a tuple of them has arrived together. An `asyncio.Event` in
    any place is waited for first."""

    def __init__(self) -> None:
        self.says: dict[str, Any] = {}
        self.asked: list[dict[str, Any]] = []
        self.begun = asyncio.Event()
        """Set when somebody asks."""
        self.cancelled = asyncio.Event()
        """Set when an answer was not waited for."""

    async def infer(self, tenant: str, **asked: Any) -> Answer:
        self._note(tenant, asked)
        try:
            return Answer(outputs=await self._said(asked), request_id=asked["request_id"])
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    @asynccontextmanager
    async def stream(self, tenant: str, **asked: Any) -> AsyncIterator[Stream]:
        self._note(tenant, asked)
        chunks = self._chunks(self.says[asked["endpoint"]])
        try:
            first = await anext(chunks)
            yield Stream(request_id=asked["request_id"], chunks=Chunks(first, chunks))
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled.set()
            raise
        finally:
            await chunks.aclose()

    def _note(self, tenant: str, asked: Mapping[str, Any]) -> None:
        self.asked.append({"tenant": tenant, **asked})
        self.begun.set()

    async def _said(self, asked: Mapping[str, Any]) -> Any:
        said = self.says[asked["endpoint"]]
        if isinstance(said, asyncio.Event):
            await said.wait()
        if isinstance(said, Exception):
            raise said
        return said

    async def _chunks(self, said: Sequence[Any]) -> AsyncGenerator[tuple[Any, bool], None]:
        for each in said:
            if isinstance(each, asyncio.Event):
                await each.wait()
                continue
            together = each if isinstance(each, tuple) else (each,)
            for left, chunk in zip(range(len(together) - 1, -1, -1), together, strict=True):
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk, left > 0


def delta(content: str | None = None, **more: Any) -> dict[str, Any]:
    """A chunk of a chat."""
    said = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": said, "logprobs": None, "finish_reason": None}
    return {"choices": [choice | more]}


def chat(*contents: str, **more: Any) -> dict[str, Any]:
    """A whole chat, with a choice for each content."""
    choices = [
        {
            "index": i,
            "message": {"role": "assistant", "content": content},
            "logprobs": None,
            "finish_reason": "stop",
        }
        for i, content in enumerate(contents)
    ]
    return {"choices": choices, "usage": USAGE} | more


USAGE = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}

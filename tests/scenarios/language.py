"""Language versions of the built-in models, asked through OpenAI's official client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from openai import AsyncOpenAI, AsyncStream
from openai.types import Completion

from tests.system import System

FRANCE = "The capital of France is"
ENDPOINT = "facts"
MODEL = "facts"


class Facts:
    """The endpoint `facts`, as a user of it sees it."""

    def __init__(self, system: System, openai: AsyncOpenAI) -> None:
        self.system = system
        self.openai = openai

    async def ask(self, prompt: Any = FRANCE, *, key: str | None = None, **parameters: Any):
        """A whole answer. Members that OpenAI does not know are sent, too."""
        return await self.openai.completions.create(**_request(prompt, key, parameters))

    async def text(self, prompt: str = FRANCE, **parameters: Any) -> str:
        return (await self.ask(prompt, **parameters)).choices[0].text

    async def stream(
        self, prompt: Any = FRANCE, *, key: str | None = None, **parameters: Any
    ) -> AsyncStream[Completion]:
        """Begun when this returns."""
        return await self.openai.completions.create(
            **_request(prompt, key, parameters), stream=True
        )

    async def told(
        self, prompt: Any = FRANCE, *, key: str | None = None, **parameters: Any
    ) -> tuple[Mapping[str, str], AsyncStream[Completion]]:
        """The headers of a stream, and the stream."""
        raw = await self.openai.completions.with_raw_response.create(
            **_request(prompt, key, parameters), stream=True
        )
        return raw.headers, raw.parse()

    async def statistics(self, version: str = "2.0.0") -> dict[str, Any]:
        """What the version's scheduler says of itself."""
        told = await self.system.client.batching(self.system.settings.node_id)
        return next(each for each in told["items"] if each["version"] == version)

    async def when(
        self, holds: Callable[[dict[str, Any]], bool], version: str = "2.0.0"
    ) -> dict[str, Any]:
        """The statistics once this holds of them."""
        while True:
            told = await self.statistics(version)
            if holds(told):
                return told

    async def until_idle(self, version: str = "2.0.0") -> dict[str, Any]:
        """The statistics once nothing is under way."""
        return await self.when(
            lambda told: told["num_requests_running"] == told["num_requests_waiting"] == 0, version
        )

    async def register(
        self, version: str, *, builtin: str, parent: str | None = None, **config: Any
    ) -> None:
        await self.system.client.register_version(
            MODEL,
            version,
            runtime="language-model",
            artifact={"uri": f"builtin://{builtin}"},
            config=config,
            parent=parent,
        )


@asynccontextmanager
async def facts(system: System, **config: Any) -> AsyncIterator[Facts]:
    """`facts` on version 2.0.0, the best built-in model, configured so."""
    openai = AsyncOpenAI(base_url=f"{system.url}/v1", api_key=system.key, max_retries=0)
    async with openai:
        asked = Facts(system, openai)
        await system.client.register_model(MODEL)
        await asked.register("2.0.0", builtin="facts-2", **config)
        await system.client.create_endpoint(ENDPOINT, model=MODEL, version="2.0.0")
        yield asked


async def read(stream: AsyncStream[Completion]) -> str:
    """The rest of a stream's text."""
    return "".join([piece.choices[0].text async for piece in stream if piece.choices])


def _request(prompt: Any, key: str | None, parameters: dict[str, Any]) -> dict[str, Any]:
    known = {"max_tokens", "n", "stop", "seed", "temperature", "logprobs", "stream_options"}
    ours = {name: value for name, value in parameters.items() if name not in known}
    theirs = {name: value for name, value in parameters.items() if name in known}
    if key is not None:
        theirs["user"] = key
    return {"model": ENDPOINT, "prompt": prompt, "extra_body": ours, **theirs}

"""The door over real HTTP: on answers that a test writes down, and on a whole system."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import openai
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from events import connect
from handlers.http.app import HttpApp
from tests.http.conftest import House
from tests.openai.voices import Voices


class Door(House):
    """A house whose inferences a test writes down."""

    def _app(self) -> HttpApp:
        self.voices = Voices()
        self.inferences = self.voices  # type: ignore[assignment]
        self.key = self.tenants.add("acme", "infer")
        return super()._app()

    @property
    def base_url(self) -> str:
        return f"{self.server.url}/v1"

    async def counted(self, code: str) -> float:
        """Inference requests to the endpoint `chat` that ended like this."""
        text = (await self.client.get("/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "switchback_inference_requests_total"
            and {"endpoint": "chat", "code": code}.items() <= sample.labels.items()
        )


@pytest_asyncio.fixture(scope="session")
async def standing_door() -> AsyncIterator[Door]:
    async with connect("memory:") as log:
        made = Door(log)
        await made.start()
        yield made
        await made.stop()


@pytest.fixture
def door(standing_door: Door) -> Door:
    """Nothing has been asked of it, or said to it."""
    standing_door.voices.__init__()  # type: ignore[misc]
    return standing_door


@pytest.fixture
def voices(door: Door) -> Voices:
    return door.voices


@pytest_asyncio.fixture
async def client(door: Door) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=door.base_url, api_key=door.key, max_retries=0, timeout=30
    ) as made:
        yield made


@pytest_asyncio.fixture
async def http(door: Door) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {door.key}"}
    async with httpx.AsyncClient(base_url=door.base_url, headers=headers, timeout=30) as made:
        yield made

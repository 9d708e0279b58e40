from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from switchback.client import Client
from switchback.client.transport import Transport
from tests.client.gateway import Gateway


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def pauses() -> list[float]:
    """How long the client has waited between attempts, in seconds that nobody spent."""
    return []


@pytest_asyncio.fixture
async def client(gateway: Gateway, pauses: list[float]) -> AsyncIterator[Client]:
    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    transport = Transport(
        url="http://gateway", key="secret", transport=gateway.transport, sleep=sleep
    )
    async with Client(transport) as client:
        yield client

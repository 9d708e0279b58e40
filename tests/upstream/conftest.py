from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import pytest
import pytest_asyncio

from engine.runtimes.upstream import Call, Keys, Upstream, UpstreamConfig
from tests.upstream.server import MockUpstream, mock_upstream

SECRET = "sk-test-0123456789abcdef"

Open = Callable[..., Upstream]


@pytest_asyncio.fixture
async def mock() -> AsyncIterator[MockUpstream]:
    async with mock_upstream() as server:
        yield server


@pytest.fixture
def environment() -> dict[str, str]:
    return {"MOCK_API_KEY": SECRET, "DATABASE_PASSWORD": "not for upstreams"}


@pytest.fixture
def pauses() -> list[float]:
    """Between attempts, in seconds that nobody spent."""
    return []


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest_asyncio.fixture
async def open_upstream(
    mock: MockUpstream, environment: dict[str, str], pauses: list[float], clock: Clock
) -> AsyncIterator[Open]:
    """Makes upstreams of the mock, with members of their config."""

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async with AsyncExitStack() as stack:
        opened: list[Upstream] = []

        def open_(*, options: dict[str, Any] | None = None, **config: Any) -> Upstream:
            upstream = Upstream(
                UpstreamConfig(**{"url": mock.url, "model": "small", **config}),
                keys=Keys(environment),
                random=Random(1),
                clock=clock,
                sleep=sleep,
                **(options or {}),
            )
            stack.push_async_callback(upstream.close)
            opened.append(upstream)
            return upstream

        yield open_
        # Whatever a test did, nothing is left behind.
        assert [upstream.statistics.in_flight for upstream in opened] == [0] * len(opened)


def chat(**options: Any) -> Call:
    return Call(kind="chat", body={"messages": [{"role": "user", "content": "Hi"}]}, **options)

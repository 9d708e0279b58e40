"""A world per test, and nodes in it that pause for no longer than they must."""

from __future__ import annotations

import pytest
import pytest_asyncio

from handlers import loading, worker
from tests.handlers.nodes import Stage
from tests.handlers.world import opened


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    found = Stage()
    monkeypatch.setattr(worker, "create_runtime", found.create)
    monkeypatch.setattr(worker, "REJOIN_SECONDS", 0.001)
    monkeypatch.setattr(loading, "ENDING_SECONDS", 0.001)
    return found


@pytest_asyncio.fixture
async def staged(stage: Stage):
    async with opened() as found:
        await found.register("1.0.0", "2.0.0", "3.0.0")
        yield found

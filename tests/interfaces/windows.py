"""What gateways counted, as it stands on the log of traffic."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from events.catalogue.traffic import WindowObserved
from tests.system import System

SOON_SECONDS = 20.0


async def first_window(system: System, endpoint: str) -> dict[str, int]:
    """Version -> requests, of the endpoint's first window, once it is there."""
    traffic = system.process.jetstream.traffic
    subject = f"obs.default.traffic.{endpoint}"
    async with asyncio.timeout(SOON_SECONDS), aclosing(traffic.subscribe(subject)) as windows:
        async for recorded in windows:
            assert isinstance(recorded.event, WindowObserved)
            return {name: each.requests for name, each in recorded.event.versions.items()}
    raise AssertionError("a subscription has no end")

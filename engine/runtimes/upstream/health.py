"""Whether an upstream is there: a question that costs it nothing, asked also without traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Final

import msgspec

from engine.runtimes.upstream.calls import probe_headers
from engine.runtimes.upstream.errors import UpstreamFailed
from engine.runtimes.upstream.wire import Wire

PATH: Final = "models"
ANSWER_SECONDS_MAX: Final = 5.0
INTERVAL_SECONDS: Final = 10.0
FAILURES_TO_UNHEALTHY: Final = 2
"""One lost probe is not yet an upstream lost."""

_REFUSED_KEY: Final = frozenset({401, 403})


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What the last probe found."""

    is_healthy: bool
    detail: str
    """Why not; "" when it is."""


HEALTHY: Final = Health(is_healthy=True, detail="")
UNKNOWN: Final = Health(is_healthy=False, detail="not asked yet")


async def probed(wire: Wire, key: str | None) -> Health:
    """One probe. Any status that neither refuses our key nor admits to trouble is a sign of life:
    not every upstream can list its models."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS_MAX):
            response = await wire.get(PATH, probe_headers(key=key))
            response.close()
    except TimeoutError:
        return sick(f"the upstream gave no sign of life in {ANSWER_SECONDS_MAX:g} s")
    except UpstreamFailed as failure:
        return sick(failure.detail)
    if response.status >= 500 or response.status in _REFUSED_KEY:
        return sick(f"the upstream answered {response.status}")
    return HEALTHY


def sick(detail: str) -> Health:
    return Health(is_healthy=False, detail=detail)


class Watch:
    """Probes an upstream for as long as it runs, and knows how it is.

    Healthy after one good probe, unhealthy after `FAILURES_TO_UNHEALTHY` bad ones in a row. It
    keeps no request back, which is the breaker's affair: it is for choosing among versions, and for
    telling people.
    """

    def __init__(
        self,
        probe: Callable[[], Awaitable[Health]],
        *,
        random: Random,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        on_change: Callable[[Health], None] | None = None,
    ) -> None:
        self._probe = probe
        self._random = random
        self._sleep = sleep
        self._on_change = on_change
        self._failures = 0
        self.health = UNKNOWN

    async def run(self) -> None:
        """Until cancelled. Pauses vary by a fifth, so that many gateways do not ask together."""
        if self.health is UNKNOWN:
            self.take(await self._probe())
        while True:
            await self._sleep(INTERVAL_SECONDS * (0.9 + self._random.random() / 5))
            self.take(await self._probe())

    def take(self, found: Health) -> None:
        """A probe's finding."""
        self._failures = 0 if found.is_healthy else self._failures + 1
        if found.is_healthy or self._failures >= FAILURES_TO_UNHEALTHY or self.health is UNKNOWN:
            was_well = self.health.is_healthy or self.health is UNKNOWN
            self.health = found
            if self._on_change is not None and was_well is not found.is_healthy:
                self._on_change(found)

"""Following a rollout until it ends: live on a terminal, in lines elsewhere, in JSON for programs.

What is shown is read anew when an event of the endpoint arrives, which shows every change at once,
and every second, because the evidence grows without events.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeAlias

from rich.console import Console
from rich.live import Live

from switchback.cli.output import print_line
from switchback.cli.rollout_view import outcomes, rollout_view, status_line
from switchback.cli.telling import told
from switchback.client import Client
from switchback.client.rollouts import ENDED

REFRESH_SECONDS: Final = 1.0

_JSON: TypeAlias = Mapping[str, Any]


class Screen(Protocol):
    """Where a rollout is shown."""

    def happened(self, event: _JSON) -> None:
        """An event of the rollout, before what it led to is shown."""
        ...

    def shown(self, rollout: _JSON) -> None: ...


class Lines:
    """A line for each event, and one whenever a verdict changes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._outcomes: dict[str, str] | None = None

    def happened(self, event: _JSON) -> None:
        self._print(f"{event['time']}  {told(event['type'], event['data'])}")

    def shown(self, rollout: _JSON) -> None:
        now = outcomes(rollout)
        if now != self._outcomes or rollout["state"] in ENDED:
            self._print(status_line(rollout))
        self._outcomes = now

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)


class JsonLines:
    """The rollout as one document a line, each time it is another."""

    def __init__(self) -> None:
        self._last: _JSON | None = None

    def happened(self, event: _JSON) -> None:
        """Events are `events tail --json`."""

    def shown(self, rollout: _JSON) -> None:
        if rollout != self._last:
            print_line(rollout)
        self._last = rollout


class Picture:
    """A view that stays in its place, below the events that went by."""

    def __init__(self, live: Live, *, now: Callable[[], datetime]) -> None:
        self._live = live
        self._now = now

    def happened(self, event: _JSON) -> None:
        line = f"{event['time']}  {told(event['type'], event['data'])}"
        self._live.console.print(line, highlight=False, markup=False)

    def shown(self, rollout: _JSON) -> None:
        self._live.update(rollout_view(rollout, now=self._now()), refresh=True)


@contextmanager
def screen_on(
    console: Console, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> Iterator[Screen]:
    """For people: a picture on a terminal, else lines."""
    if not console.is_terminal:
        yield Lines(console)
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as live:
        yield Picture(live, now=now)


async def watch(
    client: Client,
    endpoint: str,
    rollout_id: str,
    screen: Screen,
    *,
    refresh_s: float = REFRESH_SECONDS,
) -> _JSON:
    """Show a rollout until it has ended; what it was then."""
    rollout = await client.rollout(endpoint, rollout_id)
    coming = client.follow_events(after=rollout["position"], entity=f"endpoint/{endpoint}")
    async with aclosing(coming) as events:
        arriving: asyncio.Future[_JSON] | None = None
        try:
            while rollout["state"] not in ENDED:
                screen.shown(rollout)
                arriving = arriving or asyncio.ensure_future(anext(events))
                await asyncio.wait({arriving}, timeout=refresh_s)
                if arriving.done():
                    event, arriving = arriving.result(), None
                    client.min_position = max(client.min_position, event["position"])
                    if event["data"].get("rollout_id") == rollout_id:
                        screen.happened(event)
                rollout = await client.rollout(endpoint, rollout_id)
        finally:
            if arriving is not None:
                arriving.cancel()
                await asyncio.wait({arriving})
    screen.shown(rollout)
    return rollout

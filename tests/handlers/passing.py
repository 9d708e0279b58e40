"""Requests as windows see them: a test says which version each gets, and by which policy."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final
from uuid import uuid4

from engine.decisions import endpoint
from engine.routing import Decision
from events import EntityId, Event, Position, Recorded
from events.catalogue.endpoints import EndpointCreated, Policy, PolicySet
from handlers.routes import Route, route_after
from handlers.traffic.passages import Passage
from handlers.traffic.windows import Windows

START: Final = 1_770_000_000
BOTH: Final = Policy(split={"1.0.0": 95.0, "2.0.0": 5.0})


class Seconds:
    """A wall clock that a test moves."""

    def __init__(self) -> None:
        self.at = START + 0.5

    def __call__(self) -> float:
        return self.at


async def next_second(windows: Windows, clock: Seconds) -> None:
    """The clock goes on, and the windows of the second before are published."""
    clock.at = int(clock.at) + 1.5
    windows._close_window()
    await windows._publish()


def after(before: Route | None, event: Event, *, position: Position, name: str = "chat") -> Route:
    """The route after an event."""
    recorded = Recorded(
        position=position,
        entity=EntityId("acme", "endpoint", name),
        event=event,
        id=uuid4(),
        time=datetime(2026, 3, 1, tzinfo=UTC),
        actor="test",
        correlation_id="test",
    )
    state = endpoint.DECIDER.evolve(before.state if before else None, event)
    assert state is not None
    return route_after(recorded, state, before)


def route(name: str = "chat", policy: Policy = BOTH, *, position: Position = 1) -> Route:
    """An endpoint with this policy."""
    created = EndpointCreated(model="fraud", version="1.0.0", policy=policy)
    return after(None, created, position=position, name=name)


def with_policy(before: Route, policy: Policy, *, position: Position) -> Route:
    return after(before, PolicySet(policy=policy), position=position)


CHAT_ROUTE: Final = route()


def begun(
    windows: Windows,
    at: Route,
    *,
    version: str = "1.0.0",
    key: int | None = None,
    rule: str | None = None,
    attempt_after: Passage | None = None,
) -> Passage:
    """A request that begins; `key` is the bucket of its key."""
    decision = Decision(version, key or 0, rule, (), at.table.position)
    return windows.begin(at, decision, key=key, after=attempt_after)

"""A rollout that is followed: nothing missed, nothing waited for in vain, and an end."""

from __future__ import annotations

import asyncio
import io
from collections import deque
from collections.abc import AsyncIterator
from typing import Any, cast

import msgspec
import pytest
from rich.console import Console

from switchback.cli.watching import JsonLines, Lines, screen_on, watch
from switchback.client import Client
from tests.cli.rollouts import ERROR_RATE, NOW, rollout

NEVER_S = 3600.0
ADVANCED = {
    "rollout_id": "r1",
    "step": 2,
    "reason": "passed",
    "hold_until": "2026-03-02T09:01:00Z",
    "policy": {"split": {"2.0.0": 100.0}},
}
COMPLETED = {
    "rollout_id": "r1",
    "baseline": "1.0.0",
    "candidate": "2.0.0",
    "reason": "passed",
    "policy": {"split": {"2.0.0": 100.0}},
}
ENDED = rollout(state="completed", reason="passed", weight=100.0, step=2, position=21)


def event(position: int, name: str, data: dict[str, Any]) -> dict[str, Any]:
    type_ = f"switchback.endpoint.{name}.v1"
    return {"position": position, "type": type_, "time": "09:00", "data": data}


class FakeClient:
    """Shows the rollouts one after the other, and has these events happen, then none."""

    def __init__(self, *rollouts: dict[str, Any], events: list[Any]) -> None:
        self.rollouts = deque(rollouts)
        self.events = events
        self.min_position = 0
        self.asked_after: int | None = None
        self.floors: list[int] = []
        self.following = False
        self.followed = asyncio.Event()

    async def rollout(self, endpoint: str, rollout_id: str) -> dict[str, Any]:
        assert (endpoint, rollout_id) == ("chat", "r1")
        self.floors.append(self.min_position)
        return self.rollouts.popleft()

    async def follow_events(self, *, after: int, entity: str) -> AsyncIterator[dict[str, Any]]:
        assert entity == "endpoint/chat"
        self.asked_after, self.following = after, True
        self.followed.set()
        try:
            for happening in self.events:
                if isinstance(happening, Exception):
                    raise happening
                yield happening
            await asyncio.Event().wait()
        finally:
            self.following = False


class Seen:
    def __init__(self) -> None:
        self.all: list[str] = []

    def happened(self, event: Any) -> None:
        self.all.append(event["type"].split(".")[2])

    def shown(self, rollout: Any) -> None:
        self.all.append(f"{rollout['state']} {rollout['step']}")


async def watched(client: FakeClient, screen: Any, *, refresh_s: float = NEVER_S) -> Any:
    return await watch(cast(Client, client), "chat", "r1", screen, refresh_s=refresh_s)


def life() -> FakeClient:
    return FakeClient(
        rollout(),
        rollout(),
        rollout(step=2, weight=100.0, position=20),
        ENDED,
        events=[
            event(19, "alert_raised", {"alert_id": "a"}),
            event(20, "rollout_advanced", ADVANCED),
            event(21, "rollout_completed", COMPLETED),
        ],
    )


async def test_each_event_is_told_and_then_what_it_led_to() -> None:
    client, seen = life(), Seen()
    assert await watched(client, seen) == ENDED
    assert seen.all == [
        *("running 1", "running 1"),  # an alert is none of the rollout's events
        *("rollout_advanced", "running 2"),
        *("rollout_completed", "completed 2"),
    ]


async def test_what_is_shown_is_no_older_than_the_event() -> None:
    client = life()
    await watched(client, Seen())
    assert client.asked_after == 12
    assert client.floors == [0, 19, 20, 21]


async def test_evidence_is_shown_as_it_grows_without_any_event() -> None:
    client, seen = FakeClient(rollout(), rollout(), rollout(), ENDED, events=[]), Seen()
    await watched(client, seen, refresh_s=0.0)
    assert seen.all == ["running 1"] * 3 + ["completed 2"]
    assert not client.following


async def test_a_rollout_that_has_ended_is_shown_once() -> None:
    client, seen = FakeClient(ENDED, events=[]), Seen()
    await watched(client, seen)
    assert seen.all == ["completed 2"]
    assert not client.following


async def test_a_stream_that_fails_ends_the_watch_with_its_reason() -> None:
    client = FakeClient(rollout(), events=[ConnectionError("gone")])
    with pytest.raises(ConnectionError, match="gone"):
        await watched(client, Seen())


async def test_a_watch_that_is_interrupted_leaves_nothing_behind() -> None:
    client = FakeClient(rollout(), events=[])
    task = asyncio.create_task(watched(client, Seen()))
    await client.followed.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not client.following


async def test_elsewhere_than_on_a_terminal_it_is_lines() -> None:
    console = Console(file=io.StringIO(), record=True, width=200)
    with screen_on(console) as screen:
        assert isinstance(screen, Lines)
        await watched(life(), screen)
    assert console.export_text().splitlines() == [
        "chat: running; step 2 of 3; 2.0.0 25 %; error_rate inconclusive, sample_ratio pass",
        "09:00  rollout at step 3 (passed): 2.0.0 100",
        "09:00  rollout to 2.0.0 (passed) completed",
        "chat: completed (passed); step 3 of 3; 2.0.0 100 %;"
        " error_rate inconclusive, sample_ratio pass",
    ]


async def test_a_verdict_that_changes_is_a_line() -> None:
    console = Console(file=io.StringIO(), record=True, width=200)
    passed = rollout(verdicts=[ERROR_RATE | {"outcome": "pass"}])
    client = FakeClient(rollout(), rollout(), passed, passed, ENDED, events=[])
    await watched(client, Lines(console), refresh_s=0.0)
    told = [line.partition("%; ")[2] for line in console.export_text().splitlines()]
    assert told[:2] == ["error_rate inconclusive, sample_ratio pass", "error_rate pass"]
    assert len(told) == 3


async def test_for_programs_it_is_one_document_a_line_whenever_it_is_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    client = FakeClient(rollout(), rollout(), ENDED, events=[])
    await watched(client, JsonLines(), refresh_s=0.0)
    lines = capsys.readouterr().out.splitlines()
    assert [msgspec.json.decode(line) for line in lines] == [rollout(), ENDED]


async def test_on_a_terminal_it_is_a_picture_below_the_events() -> None:
    console = Console(file=io.StringIO(), record=True, width=100, force_terminal=True)
    with screen_on(console, now=lambda: NOW) as screen:
        await watched(life(), screen)
    text = console.export_text()
    assert "0:00:42 of its hold left" in text
    assert "rollout at step 3 (passed): 2.0.0 100" in text
    assert "0 % 2.0.0" in text.rpartition("completed (passed)")[2]

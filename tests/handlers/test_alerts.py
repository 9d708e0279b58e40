"""The reaction to plain failure: alerts are raised once, roll back, and clear by themselves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from engine.decisions import endpoint
from events import UNCHECKED, EntityId, Metadata
from events.catalogue.endpoints import AlertCleared, AlertRaised, RolledBack
from events.catalogue.traffic import VersionWindow, WindowObserved
from events.log import ALL_TRAFFIC
from events.memory import MemoryLog
from handlers.reactions import alerts as module
from handlers.reactions.alerts import Alerts, Quiet
from tests.handlers.world import CHAT, World, eventually, opened, running, turns

WINDOWS = EntityId("acme", "traffic", "chat")
QUIET_SECONDS = 300.0
START = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest_asyncio.fixture
async def world(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    async with opened() as found:
        await found.register("1.0.0", "2.0.0")
        await found.join("n1", "1.0.0", "2.0.0")
        await found.create("1.0.0")
        await found.move("2.0.0", "s1")
        yield found


@pytest_asyncio.fixture
async def traffic():
    return MemoryLog()


def reaction(world: World, traffic: MemoryLog) -> Alerts:
    return Alerts(
        routing=world.routing,
        commands=world.commands,
        traffic=traffic,
        timers=world.timers,
        watched=ALL_TRAFFIC,
        quiet_s=QUIET_SECONDS,
        now=world.now,
    )


async def seen(
    world: World, traffic: MemoryLog, *, failed: int, second: int = 0, policy: int | None = None
) -> None:
    """A window of 2.0.0 in which ten requests ended, so many of them badly."""
    window = WindowObserved(
        gateway="g1",
        start=START + timedelta(seconds=second),
        versions={"2.0.0": VersionWindow(requests=10, errors={"runtime_failed": failed})},
        policy=world.routing.routes["acme", "chat"].table.position if policy is None else policy,
    )
    await traffic.append(WINDOWS, [window], expected=UNCHECKED, metadata=Metadata(actor="g1"))


def alarming(world: World) -> bool:
    return bool(world.routing.alarmed())


async def told(world: World) -> list[Any]:
    kinds = AlertRaised | AlertCleared | RolledBack
    return [event for event in await world.events() if isinstance(event, kinds)]


async def test_a_burst_of_errors_raises_an_alert_and_rolls_back(world: World, traffic: MemoryLog):
    async with running(reaction(world, traffic).run()):
        await turns()
        await seen(world, traffic, failed=9)
        await world.until(lambda: alarming(world))
        raised, rolled_back = await told(world)
    assert (raised.kind, raised.severity, raised.version) == ("error_burst", "critical", "2.0.0")
    assert "9 of 10" in raised.detail
    assert (rolled_back.from_versions, rolled_back.to_version) == (("2.0.0",), "1.0.0")


async def test_a_burst_that_goes_on_is_one_alert(world: World, traffic: MemoryLog):
    async with running(reaction(world, traffic).run()):
        await turns()
        policy = world.routing.routes["acme", "chat"].table.position
        for second in range(5):
            await seen(world, traffic, failed=10, second=second, policy=policy)
        await world.until(lambda: alarming(world))
        await turns(100)
    assert [type(event) for event in await told(world)] == [AlertRaised, RolledBack]


async def test_a_bad_version_that_is_brought_back_goes_again_while_its_alert_is_open(
    world: World, traffic: MemoryLog
):
    async with running(reaction(world, traffic).run()):
        await turns()
        await seen(world, traffic, failed=10)
        await world.until(lambda: alarming(world))
        await world.move("2.0.0", "s2")
        await seen(world, traffic, failed=10, second=20)
        await world.until(lambda: world.routing.routes["acme", "chat"].state.newest == "1.0.0")
    assert [type(event) for event in await told(world)] == [AlertRaised, RolledBack] * 2


async def test_two_reactors_at_once_raise_one_alert(world: World, traffic: MemoryLog):
    first, second = reaction(world, traffic), reaction(world, traffic)
    async with running(first.run()), running(second.run()):
        await turns()
        await seen(world, traffic, failed=10)
        await world.until(lambda: alarming(world))
        await turns(100)
    assert [type(event) for event in await told(world)] == [AlertRaised, RolledBack]


async def test_windows_of_a_policy_that_is_over_raise_nothing(world: World, traffic: MemoryLog):
    async with running(reaction(world, traffic).run()):
        await turns()
        await seen(world, traffic, failed=10, policy=1)
        await turns(100)
    assert await told(world) == []


async def test_a_version_that_mostly_answers_raises_nothing(world: World, traffic: MemoryLog):
    async with running(reaction(world, traffic).run()):
        await turns()
        for second in range(4):
            await seen(world, traffic, failed=4, second=second)
        await turns(100)
    assert await told(world) == []


async def raised_by_hand(world: World, alert_id: str) -> None:
    command = endpoint.RaiseAlert(alert_id=alert_id, kind="complaints", severity="warning")
    await world.do(CHAT, command)


async def only_timer(world: World) -> str:
    await eventually(lambda: len(world.timers.pending) == 1)
    return next(iter(world.timers.pending))


async def test_an_alert_clears_when_its_cause_was_not_seen_for_long_enough(
    world: World, traffic: MemoryLog
):
    async with running(reaction(world, traffic).run()):
        await raised_by_hand(world, "a1")
        timer = await only_timer(world)
        due, _ = world.timers.pending[timer]
        assert due == world.now() + timedelta(seconds=QUIET_SECONDS)
        world.now.at = due
        world.timers.fire(timer)
        await world.until(lambda: not alarming(world))
        await eventually(lambda: world.timers.handled == [timer])
    _, cleared = await told(world)
    assert cleared == AlertCleared(alert_id="a1", reason="its cause was not seen for 300 s")


async def test_an_alert_whose_cause_is_seen_again_waits_from_then_on(
    world: World, traffic: MemoryLog
):
    """1.0.0 was retired from traffic long ago: 2.0.0 fails, and there is nowhere to go back to."""
    await world.do(CHAT, endpoint.RollBack(reason="to begin with"))
    async with running(reaction(world, traffic).run()):
        await turns()
        window = WindowObserved(
            gateway="g1",
            start=START,
            versions={"1.0.0": VersionWindow(requests=10, errors={"timeout": 10})},
            policy=world.routing.routes["acme", "chat"].table.position,
        )
        await traffic.append(WINDOWS, [window], expected=UNCHECKED)
        timer = await only_timer(world)
        world.now.at += timedelta(seconds=200)
        later = msgspec.structs.replace(window, start=START + timedelta(seconds=200))
        await traffic.append(WINDOWS, [later], expected=UNCHECKED)
        await turns(100)
        seen_at = world.now()
        world.now.at += timedelta(seconds=100)
        world.timers.fire(timer)
        await eventually(lambda: timer in world.timers.pending)
        assert world.timers.pending[timer][0] == seen_at + timedelta(seconds=QUIET_SECONDS)
        assert alarming(world)
        world.now.at = seen_at + timedelta(seconds=QUIET_SECONDS)
        world.timers.fire(timer)
        await world.until(lambda: not alarming(world))


async def test_a_reactor_that_takes_over_sets_the_same_timer(world: World, traffic: MemoryLog):
    async with running(reaction(world, traffic).run()):
        await raised_by_hand(world, "a1")
        timer = await only_timer(world)
    world.timers.pending.clear()
    async with running(reaction(world, traffic).run()):
        assert await only_timer(world) == timer


async def test_an_alert_gets_its_timer_once_timers_are_back(world: World, traffic: MemoryLog):
    world.timers.away = True
    async with running(reaction(world, traffic).run()):
        await raised_by_hand(world, "a1")
        await turns(100)
        world.timers.away = False
        await only_timer(world)


async def test_a_wake_up_for_what_is_no_alert_is_put_away(world: World, traffic: MemoryLog):
    payload = msgspec.json.encode(Quiet(tenant="acme", endpoint="chat", alert_id="never"))
    async with running(reaction(world, traffic).run()):
        world.timers.wake("alert.acme.x", b"not json")
        world.timers.wake("alert.acme.y", payload)
        await eventually(lambda: len(world.timers.handled) == 2)
    assert await told(world) == []

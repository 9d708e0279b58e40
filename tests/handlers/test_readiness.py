"""What `/readyz` says while parts are away."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from events import LogUnavailable
from events.memory import MemoryLog
from handlers import readiness as module
from handlers.following import Follower
from handlers.http.views import Part
from handlers.projector import ProjectorStatus
from handlers.readiness import Readiness
from tests.handlers.world import World, eventually, running


class Log(MemoryLog):
    """A log that answers, refuses or hangs."""

    mood = "answers"

    async def position(self) -> int:
        if self.mood == "refuses":
            raise LogUnavailable("away")
        if self.mood == "hangs":
            await asyncio.Future()
        return await super().position()


class Tables:
    """A projector, as readiness sees it."""

    def __init__(self, state: str, error: str | None = None) -> None:
        self._status = ProjectorStatus(
            state=state, position=3, lag=1, skipped=2, building=(), error=error
        )

    async def status(self) -> ProjectorStatus:
        return self._status


class Rig:
    def __init__(self, **parts: Any) -> None:
        self.world = World()
        self.log = Log()
        self.follower = Follower(self.world.routing, self.log)
        self.cache = SimpleNamespace(stats=SimpleNamespace(errors=0))
        self.readiness = Readiness(
            log=self.log,
            routing=self.world.routing,
            follower=self.follower,
            cache=self.cache,
            **({"projector": None, "worker": None} | parts),
        )

    async def part(self, name: str) -> Part:
        return (await self.readiness.parts())[name]


async def test_before_anything_is_folded_routing_is_down():
    part = await Rig().part("routing")
    assert (part.state, part.required) == ("down", True)


async def test_a_fold_that_follows_is_well_and_says_how_far_it_is():
    rig = Rig()
    async with running(rig.follower.run()):
        await eventually(lambda: rig.follower.following)
        rig.world.routing.skip_to(5)
        part = await rig.part("routing")
    assert (part.state, part.position, part.lag, part.skipped) == ("ok", 5, 0, 0)


async def test_a_fold_that_stands_still_is_degraded_and_not_down():
    rig = Rig()
    rig.world.routing.skip_to(5)
    part = await rig.part("routing")
    assert (part.state, part.position) == ("degraded", 5)


@pytest.mark.parametrize("mood", ["refuses", "hangs"])
async def test_a_log_that_does_not_answer_is_degraded_and_nothing_waits_for_it(
    mood: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "LOG_SECONDS", 0.01)
    rig = Rig()
    rig.world.routing.skip_to(5)
    rig.log.mood = mood
    parts = await rig.readiness.parts()
    assert parts["log"].state == "degraded"
    assert parts["routing"].lag is None
    assert all(part.state != "down" for part in parts.values())


async def test_a_cache_is_degraded_once_for_the_errors_since_the_last_look():
    rig = Rig()
    assert (await rig.part("cache")).state == "ok"
    rig.cache.stats.errors = 3
    assert (await rig.part("cache")).state == "degraded"
    assert (await rig.part("cache")).state == "ok"
    assert not (await rig.part("cache")).required


@pytest.mark.parametrize(
    ("state", "shown", "required"),
    [("following", "ok", False), ("waiting", "degraded", False), ("stopped", "down", True)],
)
async def test_tables_make_a_process_unready_only_when_they_have_stopped(
    state: str, shown: str, required: bool
):
    part = await Rig(projector=Tables(state, "why")).part("tables")
    assert (part.state, part.required, part.detail) == (shown, required, "why")
    assert (part.position, part.lag, part.skipped) == (3, 1, 2)


@pytest.mark.parametrize(("announced", "state"), [(True, "ok"), (False, "degraded")])
async def test_a_node_is_well_once_the_log_counts_it(announced: bool, state: str):
    part = await Rig(worker=SimpleNamespace(announced=announced)).part("node")
    assert part.state == state


async def test_parts_a_process_does_not_have_are_missing():
    assert set(await Rig().readiness.parts()) == {"log", "routing", "cache"}

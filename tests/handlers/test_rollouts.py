"""The reaction that moves rollouts: on passing, on failing, on the clock; once, whoever runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import msgspec
import pytest
import pytest_asyncio

from engine.analysis.stepping import WINDOWS_BEHIND_SECONDS
from engine.decisions import endpoint
from events import UNCHECKED, EntityId, Metadata
from events.catalogue.endpoints import (
    AlertRaised,
    Analysis,
    RolledBack,
    RolloutAborted,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutHeld,
    RolloutResumed,
    RolloutStarted,
    Step,
)
from events.catalogue.traffic import Units, VersionWindow, WindowObserved
from events.memory import MemoryLog
from handlers.judging import Judging
from handlers.reactions import rollouts as module
from handlers.reactions.rollouts import HoldEnd, Rollouts
from tests.handlers.world import (
    CHAT,
    SOON_SECONDS,
    World,
    eventually,
    opened,
    running,
    turns,
)

WINDOWS = EntityId("acme", "traffic", "chat")
BOTH = frozenset({"1.0.0", "2.0.0"})
STEPS = (
    Step(weight=10, hold_s=60, min_samples=100),
    Step(weight=50, hold_s=60, min_samples=100),
)
KINDS = (
    RolloutStarted
    | RolloutAdvanced
    | RolloutHeld
    | RolloutResumed
    | RolloutCompleted
    | RolloutAborted
    | RolledBack
    | AlertRaised
)


class Stage:
    """A world with traffic, and the reactions that look at it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.traffic = MemoryLog()

    def reaction(self) -> Rollouts:
        world = self.world
        return Rollouts(
            routing=world.routing,
            commands=world.commands,
            judging=Judging(log=world.log, traffic=self.traffic, now=world.now),
            traffic=self.traffic,
            timers=world.timers,
            now=world.now,
        )

    async def start(self, *, steps: Iterable[Step] = STEPS, **analysis: Any) -> None:
        command = endpoint.StartRollout(
            rollout_id="r1",
            to="2.0.0",
            steps=tuple(steps),
            analysis=Analysis(**analysis),
            now=self.world.now(),
            registered=BOTH,
            resident=BOTH,
        )
        await self.world.do(CHAT, command)

    async def seen(self, *, candidate: int, failed: int = 0, baseline: int | None = None) -> None:
        """A second under the policy in force; what fails, fails in the candidate."""
        route = self.world.routing.routes["acme", "chat"]
        rollout = route.state.rollout
        weight = rollout.weight if rollout is not None else 50
        if baseline is None:
            baseline = round(candidate * (100 - weight) / weight)
        window = WindowObserved(
            gateway="g1",
            start=self.world.now().replace(microsecond=0),
            versions={
                "1.0.0": VersionWindow(requests=baseline, units=Units(seen=baseline)),
                "2.0.0": VersionWindow(
                    requests=candidate,
                    errors={"runtime_failed": failed} if failed else {},
                    units=Units(seen=candidate, errors=failed),
                ),
            },
            policy=route.table.position,
        )
        metadata = Metadata(actor="g1", time=self.world.now())
        await self.traffic.append(WINDOWS, [window], expected=UNCHECKED, metadata=metadata)

    def later(self, seconds: float) -> None:
        self.world.now.at += timedelta(seconds=seconds)

    async def told(self) -> list[Any]:
        return [event for event in await self.world.events() if isinstance(event, KINDS)]

    async def until(self, *kinds: type) -> list[Any]:
        """What was told, once it is these in this order."""
        async with asyncio.timeout(SOON_SECONDS):
            told = await self.told()
            while [type(event) for event in told] != list(kinds):
                await turns()
                told = await self.told()
        return told

    async def at_rest(self) -> list[Any]:
        """What was told, once the reaction has nothing left to do."""
        await turns(200)
        return await self.told()

    def timer(self) -> str:
        [name] = self.world.timers.pending
        return name


@pytest_asyncio.fixture
async def stage(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.001)
    async with opened() as world:
        await world.register("1.0.0", "2.0.0")
        await world.join("n1", "1.0.0", "2.0.0")
        await world.create("1.0.0")
        yield Stage(world)


async def test_a_step_passes_when_its_hold_is_over_and_the_evidence_is_good(stage: Stage):
    async with running(stage.reaction().run()):
        await stage.start()
        await stage.seen(candidate=400)
        assert [type(event) for event in await stage.at_rest()] == [RolloutStarted]
        stage.later(60)
        await stage.seen(candidate=10)
        _, advanced = await stage.until(RolloutStarted, RolloutAdvanced)
    assert (advanced.step, advanced.reason) == (1, "passed")
    assert advanced.hold_until == stage.world.now() + timedelta(seconds=60)
    assert {verdict.outcome for verdict in advanced.verdicts} == {"pass"}
    assert advanced.verdicts[0].candidate_samples == 410


async def test_the_last_step_completes_the_rollout(stage: Stage):
    async with running(stage.reaction().run()):
        await stage.start()
        for kinds in ([RolloutAdvanced], [RolloutAdvanced, RolloutCompleted]):
            stage.later(60)
            await stage.seen(candidate=400)
            await stage.until(RolloutStarted, *kinds)
    assert stage.world.routing.rolling() == []
    assert stage.world.routing.routes["acme", "chat"].state.active == "2.0.0"


async def test_a_candidate_that_fails_goes_back_at_once_with_the_evidence(stage: Stage):
    async with running(stage.reaction().run()):
        await stage.start()
        await stage.seen(candidate=30, failed=12)
        _, aborted, rolled_back = await stage.until(RolloutStarted, RolloutAborted, RolledBack)
    assert (aborted.reason, aborted.step) == ("failed", 0)
    assert aborted.detail.startswith("error_rate: ")
    failed = next(verdict for verdict in aborted.verdicts if verdict.outcome == "fail")
    assert failed.metric == "error_rate"
    assert failed.e_value >= failed.threshold
    assert (rolled_back.from_versions, rolled_back.to_version) == (("2.0.0",), "1.0.0")


async def test_a_paused_rollout_is_still_watched_for_harm(stage: Stage):
    async with running(stage.reaction().run()):
        await stage.start()
        command = endpoint.PauseRollout(rollout_id="r1", now=stage.world.now())
        await stage.world.do(CHAT, command)
        stage.later(600)
        await stage.seen(candidate=500)
        assert len(await stage.at_rest()) == 2
        await stage.seen(candidate=30, failed=15)
        await stage.until(RolloutStarted, RolloutHeld, RolloutAborted, RolledBack)


async def test_a_hold_that_ends_without_evidence_is_held_and_goes_on_with_it(stage: Stage):
    async with running(stage.reaction().run()):
        await stage.start()
        await eventually(lambda: bool(stage.world.timers.pending))
        due, _ = stage.world.timers.pending[stage.timer()]
        assert due == stage.world.now() + timedelta(seconds=60 + WINDOWS_BEHIND_SECONDS)
        stage.later(60 + WINDOWS_BEHIND_SECONDS)
        stage.world.timers.fire(stage.timer())
        _, held = await stage.until(RolloutStarted, RolloutHeld)
        assert held.reason == "inconclusive"
        assert "pass" not in {verdict.outcome for verdict in held.verdicts}
        await stage.seen(candidate=400)
        await stage.until(RolloutStarted, RolloutHeld, RolloutAdvanced)


@pytest.mark.parametrize(
    ("on_inconclusive", "kinds"),
    [
        ("rollback", [RolloutStarted, RolloutAborted, RolledBack]),
        ("promote", [RolloutStarted, RolloutAdvanced]),
    ],
)
async def test_what_is_inconclusive_ends_as_the_analysis_says(
    stage: Stage, on_inconclusive: str, kinds: list[type]
):
    async with running(stage.reaction().run()):
        await stage.start(on_inconclusive=on_inconclusive)
        await eventually(lambda: bool(stage.world.timers.pending))
        stage.later(60 + WINDOWS_BEHIND_SECONDS)
        stage.world.timers.fire(stage.timer())
        _, ended, *_ = await stage.until(*kinds)
    assert ended.reason == "inconclusive"


async def test_a_step_is_not_called_inconclusive_while_its_last_windows_are_under_way(stage: Stage):
    async with running(stage.reaction().run()):
        await stage.start()
        stage.later(60)
        await stage.seen(candidate=5)
        assert [type(event) for event in await stage.at_rest()] == [RolloutStarted]
        await stage.seen(candidate=400)
        await stage.until(RolloutStarted, RolloutAdvanced)


async def test_a_wake_up_is_believed_although_this_clock_is_behind(stage: Stage):
    async with running(stage.reaction().run()):
        await stage.start()
        await eventually(lambda: bool(stage.world.timers.pending))
        stage.later(59)
        stage.world.timers.fire(stage.timer())
        await stage.until(RolloutStarted, RolloutHeld)


async def test_a_wake_up_of_a_hold_that_was_paused_moves_nothing(stage: Stage):
    async with running(stage.reaction().run()):
        await stage.start()
        await eventually(lambda: bool(stage.world.timers.pending))
        old = stage.timer()
        stage.later(10)
        now = stage.world.now
        await stage.world.do(CHAT, endpoint.PauseRollout(rollout_id="r1", now=now()))
        stage.later(1_000)
        await stage.world.do(CHAT, endpoint.ResumeRollout(rollout_id="r1", now=now()))
        await eventually(lambda: len(stage.world.timers.pending) == 2)
        stage.world.timers.fire(old)
        await eventually(lambda: stage.world.timers.handled == [old])
        assert [type(event) for event in await stage.at_rest()] == [
            RolloutStarted,
            RolloutHeld,
            RolloutResumed,
        ]
        due, _ = stage.world.timers.pending[stage.timer()]
        assert due == now() + timedelta(seconds=50 + WINDOWS_BEHIND_SECONDS)


async def test_two_reactors_at_once_take_each_step_once(stage: Stage):
    first, second = stage.reaction(), stage.reaction()
    async with running(first.run()), running(second.run()):
        await stage.start()
        for _ in range(2):
            stage.later(60)
            await stage.seen(candidate=400)
            await stage.seen(candidate=1)
            await stage.at_rest()
        await stage.until(RolloutStarted, RolloutAdvanced, RolloutCompleted)


async def test_a_reactor_that_takes_over_knows_what_was_seen_before(stage: Stage):
    async with running(stage.reaction().run()):
        await stage.start()
        await stage.seen(candidate=400)
        await stage.at_rest()
    stage.later(60)
    async with running(stage.reaction().run()):
        await turns()
        await stage.seen(candidate=1)
        _, advanced = await stage.until(RolloutStarted, RolloutAdvanced)
    assert advanced.verdicts[0].candidate_samples == 401


async def test_a_candidate_that_no_node_has_waits_for_one(stage: Stage):
    async with running(stage.reaction().run()):
        await stage.start()
        await stage.world.unloaded("n1", "2.0.0")
        stage.later(60)
        await stage.seen(candidate=400)
        assert [type(event) for event in await stage.at_rest()] == [RolloutStarted]
        await stage.world.loaded("n1", "2.0.0")
        await stage.seen(candidate=1)
        await stage.until(RolloutStarted, RolloutAdvanced)


async def test_a_split_that_is_not_what_it_should_be_holds_and_warns_once(stage: Stage):
    async with running(stage.reaction().run()):
        await stage.start()
        for _ in range(3):
            await stage.seen(candidate=300, baseline=700)
        stage.later(60)
        await stage.seen(candidate=300, baseline=700)
        stage.later(WINDOWS_BEHIND_SECONDS)
        await stage.seen(candidate=300, baseline=700)
        _, alert, _ = await stage.until(RolloutStarted, AlertRaised, RolloutHeld)
        await stage.seen(candidate=300, baseline=700)
        assert len(await stage.at_rest()) == 3
    assert (alert.kind, alert.severity, alert.version) == ("sample_ratio", "warning", "2.0.0")


async def test_timers_are_set_once_they_are_back(stage: Stage):
    stage.world.timers.away = True
    async with running(stage.reaction().run()):
        await stage.start()
        await turns(100)
        stage.world.timers.away = False
        await eventually(lambda: bool(stage.world.timers.pending))


async def test_what_is_no_hold_is_put_away(stage: Stage):
    gone = HoldEnd(
        tenant="acme", endpoint="gone", rollout_id="r9", step=0, hold_until=stage.world.now()
    )
    async with running(stage.reaction().run()):
        stage.world.timers.wake("rollout.acme.x", b"not json")
        stage.world.timers.wake("rollout.acme.y", msgspec.json.encode(gone))
        await eventually(lambda: len(stage.world.timers.handled) == 2)


async def test_a_window_that_is_on_the_log_twice_counts_once(stage: Stage):
    judging = Judging(log=stage.world.log, traffic=stage.traffic, now=stage.world.now)
    await stage.start()
    await stage.seen(candidate=50)
    repeated = stage.traffic._recorded[-1]
    again = msgspec.structs.replace(repeated, position=repeated.position + 1)
    await stage.traffic.restore([again])
    route = stage.world.routing.routes["acme", "chat"]
    judgement = await judging.judge(route)
    assert judgement.verdicts[0].candidate_samples == 50
    found = [w async for w in judging.windows("acme", "chat", since_s=60)]
    assert len(found) == 1

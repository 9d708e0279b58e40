"""Two processes at once, each deciding on what it last knew, against one log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import pytest
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from engine.decisions.decider import Refused, fold
from engine.decisions.endpoint import DECIDER, Command, Endpoint, RollBack, State
from engine.decisions.policy import sole
from events import EntityId, Event, Metadata
from events.catalogue.endpoints import RolloutAborted, RolloutAdvanced, RolloutCompleted
from events.memory import MemoryLog
from handlers.commands import CommandHandler, Outcome
from tests.decisions.endpoints import ALL, V1, V3, alarm, canary, create, request, set_policy
from tests.decisions.rollout_watch import RolloutWatch
from tests.decisions.rollouts import (
    LAST,
    STEPS,
    abort,
    advance,
    hold,
    pause,
    promote,
    promote_fully,
    resume,
    start,
)

CHAT: Final = EntityId("acme", "endpoint", "chat")
RETRIES_MAX: Final = 20

commands: Final = st.sampled_from(
    [
        *(start(rollout_id=rollout_id) for rollout_id in ("r1", "r2")),
        *(advance(step) for step in range(len(STEPS))),
        *(promote(step) for step in range(len(STEPS))),
        hold(0),
        hold(1),
        pause(),
        resume(),
        promote(),
        promote_fully(),
        abort(),
        abort("r2"),
        RollBack(),
        alarm(),
        alarm("a2", version=V1),
        request(V3),
        set_policy(canary(V1, V3)),
    ]
)


class World:
    """One log, and processes that know of it what they read last."""

    def __init__(self, processes: int) -> None:
        self.log = MemoryLog()
        self.processes = [CommandHandler(self.log) for _ in range(processes)]
        self.outcomes: list[Outcome[State]] = []

    async def at_once(self, *asked: Command) -> None:
        """Each command in a process of its own."""
        pairs = zip(self.processes, asked, strict=False)
        await asyncio.gather(*(self._ask(process, command) for process, command in pairs))

    async def one_by_one(self, *asked: Command) -> None:
        """All in the first process: the others do not hear of it."""
        for command in asked:
            await self._ask(self.processes[0], command)

    async def history(self) -> list[Event]:
        return [recorded.event async for recorded in self.log.read(CHAT)]

    async def state(self) -> Endpoint:
        state = fold(DECIDER, await self.history())
        assert state is not None
        return state

    async def _ask(self, process: CommandHandler, command: Command) -> None:
        try:
            outcome = await process.handle(DECIDER, CHAT, command, metadata=Metadata())
        except Refused:
            return
        self.outcomes.append(outcome)


async def begun(*asked: Command, processes: int = 2) -> World:
    """Every process knows the rollout as it began; the first one also what it asked since."""
    world = World(processes)
    await world.one_by_one(create(), start())
    for process in world.processes:
        await process.load(DECIDER, CHAT)
    await world.one_by_one(*asked)
    return world


def passed(steps: int) -> list[Command]:
    return [advance(step) for step in range(steps)]


def of_type(events: Sequence[Event], type_: type[Event]) -> list[Event]:
    return [event for event in events if isinstance(event, type_)]


@pytest.mark.parametrize("step", range(len(STEPS)))
async def test_operators_who_all_press_at_the_same_step_advance_once(step: int) -> None:
    world = await begun(*passed(step), processes=4)
    await world.at_once(promote(step), advance(step), promote(step), advance(step))
    history = await world.history()
    ended = len(of_type(history, RolloutAdvanced)) + len(of_type(history, RolloutCompleted))
    assert ended == step + 1


@pytest.mark.parametrize("step", range(len(STEPS)))
async def test_an_abort_wins_over_whatever_comes_at_the_same_time(step: int) -> None:
    for rival in (advance(step), hold(step), pause(), promote(step), start()):
        for pair in ((abort(), rival), (rival, abort())):
            world = await begun(*passed(step))
            await world.at_once(*pair)
            state = await world.state()
            if not of_type(await world.history(), RolloutCompleted):
                assert sole(state.policy) == state.active == V1
                assert len(of_type(await world.history(), RolloutAborted)) == 1


async def test_the_last_step_and_an_abort_at_once_end_as_one_of_them_says() -> None:
    for pair in ((abort(), advance(LAST)), (advance(LAST), abort())):
        world = await begun(*passed(LAST))
        await world.at_once(*pair)
        history = await world.history()
        ends = of_type(history, RolloutCompleted) + of_type(history, RolloutAborted)
        assert len(ends) == 1
        await world.at_once(RollBack())
        assert sole((await world.state()).policy) == V1


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@over(st.lists(st.tuples(commands, commands, commands), max_size=12))
def test_whatever_three_processes_ask_at_once_every_rollout_stays_in_order(
    rounds: list[tuple[Command, ...]],
) -> None:
    asyncio.run(_in_order(rounds))


async def _in_order(rounds: list[tuple[Command, ...]]) -> None:
    world = await begun(processes=3)
    for asked in rounds:
        await world.at_once(*asked)
    watch = RolloutWatch()
    appends = sorted(
        (outcome for outcome in world.outcomes if outcome.events),
        key=lambda outcome: outcome.position,
    )
    for outcome in appends:
        watch.see(outcome.events, resident=ALL)
    history = await world.history()
    assert [event for outcome in appends for event in outcome.events] == history
    assert [outcome.state for outcome in appends][-1] == await world.state()
    await world.at_once(RollBack(), RollBack(), RollBack())
    state = await world.state()
    assert (sole(state.policy), state.rollout, state.swap) == (state.active, None, None)

"""The load-decide-append loop, on the memory log and real decisions."""

from __future__ import annotations

import asyncio
from uuid import UUID, uuid5

import pytest

from engine.decisions import model
from engine.decisions.decider import Refused
from events import EntityId, Metadata
from events.catalogue.models import AliasMoved, ModelRegistered
from events.memory import MemoryLog
from handlers.commands import RACES_MAX, CommandHandler, Contended

FRAUD = EntityId("acme", "model", "fraud")
NAMESPACE = UUID(int=7)


def register_model() -> model.RegisterModel:
    return model.RegisterModel(name="fraud")


def register_version(version: str) -> model.RegisterVersion:
    return model.RegisterVersion(version=version, runtime="echo", runtimes=frozenset({"echo"}))


def move(alias: str, version: str) -> model.MoveAlias:
    return model.MoveAlias(alias=alias, version=version)


async def prepared(log: MemoryLog) -> CommandHandler:
    handler = CommandHandler(log)
    await handler.handle(model.DECIDER, FRAUD, register_model(), metadata=Metadata())
    for version in ("1.0.0", "2.0.0"):
        await handler.handle(model.DECIDER, FRAUD, register_version(version), metadata=Metadata())
    return handler


async def test_an_outcome_carries_the_position_and_the_state_after_it():
    log = MemoryLog()
    handler = CommandHandler(log)
    outcome = await handler.handle(model.DECIDER, FRAUD, register_model(), metadata=Metadata())
    assert outcome.position == await log.position() == 1
    assert [type(event) for event in outcome.events] == [ModelRegistered]


async def test_a_refusal_writes_nothing():
    log = MemoryLog()
    handler = await prepared(log)
    before = await log.position()
    with pytest.raises(Refused):
        await handler.handle(model.DECIDER, FRAUD, move("prod", "9.9.9"), metadata=Metadata())
    assert await log.position() == before


async def test_a_check_refuses_as_handling_would_and_writes_nothing():
    log = MemoryLog()
    handler = await prepared(log)
    before = await log.position()
    with pytest.raises(Refused):
        await handler.check(model.DECIDER, FRAUD, move("prod", "9.9.9"), metadata=Metadata())
    await handler.check(model.DECIDER, FRAUD, move("prod", "1.0.0"), metadata=Metadata())
    assert await log.position() == before


async def test_a_check_never_refuses_what_was_handled_before():
    handler = await prepared(MemoryLog())
    first = Metadata(command_id=uuid5(NAMESPACE, "first"))
    await handler.handle(model.DECIDER, FRAUD, move("prod", "1.0.0"), metadata=first)
    retire = model.RetireVersion(version="1.0.0", routed_by=frozenset({"chat"}))
    with pytest.raises(Refused):
        await handler.check(model.DECIDER, FRAUD, retire, metadata=Metadata())
    await handler.check(model.DECIDER, FRAUD, retire, metadata=first)


async def test_repeating_a_command_yields_no_events():
    log = MemoryLog()
    handler = await prepared(log)
    first = await handler.handle(model.DECIDER, FRAUD, move("prod", "1.0.0"), metadata=Metadata())
    again = await handler.handle(model.DECIDER, FRAUD, move("prod", "1.0.0"), metadata=Metadata())
    assert again.events == ()
    assert again.position == first.position == await log.position()


async def test_a_refusal_is_given_only_on_what_the_log_says_now():
    log = MemoryLog()
    mine, theirs = await prepared(log), CommandHandler(log)
    await theirs.handle(model.DECIDER, FRAUD, register_version("3.0.0"), metadata=Metadata())
    outcome = await mine.handle(model.DECIDER, FRAUD, move("prod", "3.0.0"), metadata=Metadata())
    assert outcome.events == (AliasMoved(alias="prod", to_version="3.0.0"),)


async def test_a_repeated_command_id_is_answered_with_the_first_outcome_by_any_process():
    log = MemoryLog()
    handler = await prepared(log)
    first_id = Metadata(command_id=uuid5(NAMESPACE, "first"))
    first = await handler.handle(model.DECIDER, FRAUD, move("prod", "1.0.0"), metadata=first_id)
    await handler.handle(model.DECIDER, FRAUD, move("prod", "2.0.0"), metadata=Metadata())
    before = await log.position()
    for process in (handler, CommandHandler(log)):
        again = await process.handle(model.DECIDER, FRAUD, move("prod", "1.0.0"), metadata=first_id)
        assert again.position == first.position
        assert again.events == first.events
        assert again.state.aliases["prod"] == "1.0.0"
    assert await log.position() == before


async def test_a_state_never_misses_what_others_wrote_before_a_repeated_append():
    log = MemoryLog()
    stale = await prepared(log)
    other = CommandHandler(log)
    repeated = Metadata(command_id=uuid5(NAMESPACE, "repeated"))
    await other.handle(model.DECIDER, FRAUD, register_version("3.0.0"), metadata=Metadata())
    await other.handle(model.DECIDER, FRAUD, move("prod", "1.0.0"), metadata=repeated)
    await stale.handle(model.DECIDER, FRAUD, move("prod", "1.0.0"), metadata=repeated)
    outcome = await stale.handle(model.DECIDER, FRAUD, move("next", "3.0.0"), metadata=Metadata())
    assert set(outcome.state.versions) == {"1.0.0", "2.0.0", "3.0.0"}


async def test_concurrent_commands_of_many_processes_are_put_in_one_order():
    log = MemoryLog()
    await prepared(log)
    processes = [CommandHandler(log) for _ in range(4)]
    commands = [
        process.handle(
            model.DECIDER, FRAUD, register_version(f"3.{index}.{n}"), metadata=Metadata()
        )
        for index, process in enumerate(processes)
        for n in range(5)
    ]
    outcomes = await asyncio.gather(*commands, return_exceptions=True)
    lost = [outcome for outcome in outcomes if isinstance(outcome, Contended)]
    written = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    assert len(lost) + len(written) == len(commands)
    _, state = await CommandHandler(log).load(model.DECIDER, FRAUD)
    assert len(state.versions) == 2 + len(written)


class AlwaysLate(MemoryLog):
    """Before each append to the entity somebody else writes to it."""

    rival = 0

    async def append_all(self, appends, *, metadata=None):
        if appends[0].expected and metadata is not None and metadata.actor == "slow":
            self.rival += 1
            rival = CommandHandler(self)
            version = register_version(f"7.0.{self.rival}")
            await rival.handle(model.DECIDER, FRAUD, version, metadata=Metadata())
        return await super().append_all(appends, metadata=metadata)


async def test_a_command_that_loses_every_race_is_refused_and_writes_nothing():
    log = AlwaysLate()
    handler = await prepared(log)
    with pytest.raises(Contended):
        await handler.handle(
            model.DECIDER, FRAUD, move("prod", "1.0.0"), metadata=Metadata(actor="slow")
        )
    assert log.rival == RACES_MAX + 1
    _, state = await handler.load(model.DECIDER, FRAUD)
    assert "prod" not in state.aliases

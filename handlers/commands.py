"""The load-decide-append loop: the only place where decisions meet the log.

Guarantees: a command is decided on the state it is appended to, or not at all; a refusal or an
empty decision is given only on a state just read from the log; a repeated command id among an
entity's last `REMEMBERED_EVENTS_MAX` events is answered with the first outcome and writes nothing.
Does not guarantee that projections show the outcome yet: whoever cares reads with the outcome's
position.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Final, Generic, TypeVar
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec

from engine.decisions.decider import Decider, ForeignEvent, Refused
from events import (
    EntityId,
    Event,
    EventLog,
    MalformedEvent,
    Metadata,
    Position,
    Recorded,
    WrongExpectedPosition,
)

RACES_MAX: Final = 3
"""How often a lost race is decided again before the command is refused."""
ENTITIES_CACHED_MAX: Final = 10_000
REMEMBERED_EVENTS_MAX: Final = 1_000
_FRESH_UUID_VERSION: Final = 4
"""Command ids drawn at random cannot have been seen before; derived ones (version 5) can."""

Command = TypeVar("Command")
State = TypeVar("State")


class Contended(Refused):
    """Other writers were faster every time. Nothing was written; trying again is safe."""

    code = "conflict"

    def __init__(self, entity: EntityId) -> None:
        super().__init__(f"{entity} is changing too fast; try again")
        self.entity = entity


class Outcome(msgspec.Struct, Generic[State], frozen=True, kw_only=True):
    """What became of a command."""

    position: Position
    """Of its last event; where the entity stands if it had no effect."""
    state: State
    """The entity as of `position`."""
    events: tuple[Event, ...]
    """What was written, now or when the command was first handled; empty without effect."""


class _Entity(Generic[State]):
    """An entity as far as this process knows it.

    `read_*` and `positions` come from the log alone. `position` and `state` may add our own
    appends: only of commands with a fresh id, because a repeated one may be answered from the past,
    and what others wrote in between would be missing. Catching up starts from what was read.
    """

    def __init__(self, initial: State) -> None:
        self.read_position: Position = 0
        self.read_state = initial
        self.position: Position = 0
        self.state = initial
        self.positions: OrderedDict[UUID, Position] = OrderedDict()

    def remember(self, event_id: UUID, position: Position) -> None:
        self.positions[event_id] = position
        while len(self.positions) > REMEMBERED_EVENTS_MAX:
            self.positions.popitem(last=False)


class CommandHandler:
    """Handles commands of every aggregate against one log."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self._entities: OrderedDict[EntityId, _Entity[Any]] = OrderedDict()
        self._locks: WeakValueDictionary[EntityId, asyncio.Lock] = WeakValueDictionary()

    async def handle(
        self,
        decider: Decider[Command, State],
        entity: EntityId,
        command: Command,
        *,
        metadata: Metadata,
    ) -> Outcome[State]:
        """Raises Refused (nothing was written), and what EventLog.append raises."""
        lock = self._locks.setdefault(entity, asyncio.Lock())
        async with lock:
            return await self._handle(decider, entity, command, metadata)

    async def load(
        self, decider: Decider[Command, State], entity: EntityId
    ) -> tuple[Position, State]:
        """The entity as the log has it now; position 0 and the initial state if it has no event."""
        lock = self._locks.setdefault(entity, asyncio.Lock())
        async with lock:
            known = self._known(decider, entity)
            await self._catch_up(decider, entity, known)
            return known.position, known.state

    async def check(
        self,
        decider: Decider[Command, State],
        entity: EntityId,
        command: Command,
        *,
        metadata: Metadata,
    ) -> None:
        """Raises Refused if `handle` would, as things stand now; writes nothing."""
        lock = self._locks.setdefault(entity, asyncio.Lock())
        async with lock:
            known = self._known(decider, entity)
            await self._catch_up(decider, entity, known)
            if metadata.event_id(0) not in known.positions:
                decider.decide(known.state, command)

    async def _handle(
        self,
        decider: Decider[Command, State],
        entity: EntityId,
        command: Command,
        metadata: Metadata,
    ) -> Outcome[State]:
        known = self._known(decider, entity)
        repeatable = metadata.command_id.version != _FRESH_UUID_VERSION
        if repeatable:
            await self._catch_up(decider, entity, known)
        fresh = repeatable
        races = 0
        while True:
            if metadata.event_id(0) in known.positions:
                return await self._first_outcome(decider, entity, known, metadata)
            try:
                events = decider.decide(known.state, command)
            except Refused:
                if fresh:
                    raise
                events = ()
            if not events:
                if fresh:
                    return Outcome(position=known.position, state=known.state, events=())
                await self._catch_up(decider, entity, known)
                fresh = True
                continue
            try:
                position = await self.log.append(
                    entity, events, expected=known.position, metadata=metadata
                )
            except WrongExpectedPosition:
                races += 1
                if races > RACES_MAX:
                    raise Contended(entity) from None
                await self._catch_up(decider, entity, known)
                fresh = True
                continue
            state = fold_onto(decider, known.state, events)
            if not repeatable:
                known.position, known.state = position, state
            return Outcome(position=position, state=state, events=tuple(events))

    def _known(self, decider: Decider[Command, State], entity: EntityId) -> _Entity[State]:
        known = self._entities.get(entity)
        if known is None:
            known = self._entities[entity] = _Entity(decider.initial)
            while len(self._entities) > ENTITIES_CACHED_MAX:
                self._entities.popitem(last=False)
        self._entities.move_to_end(entity)
        return known

    async def _catch_up(
        self, decider: Decider[Command, State], entity: EntityId, known: _Entity[State]
    ) -> None:
        async for recorded in self.log.read(entity, after=known.read_position):
            known.read_state = _evolved(decider, known.read_state, recorded)
            known.read_position = recorded.position
            known.remember(recorded.id, recorded.position)
        known.position = known.read_position
        known.state = known.read_state

    async def _first_outcome(
        self,
        decider: Decider[Command, State],
        entity: EntityId,
        known: _Entity[State],
        metadata: Metadata,
    ) -> Outcome[State]:
        index = 0
        while metadata.event_id(index) in known.positions:
            index += 1
        last = known.positions[metadata.event_id(index - 1)]
        history = [recorded async for recorded in self.log.read(entity)]
        state, events = _as_of(decider, history, last)
        return Outcome(position=last, state=state, events=tuple(events[-index:]))


def _evolved(decider: Decider[Any, State], state: State, recorded: Recorded) -> State:
    """Raises MalformedEvent for an event that nothing before it can have led to."""
    try:
        return decider.evolve(state, recorded.event)
    except (ForeignEvent, LookupError) as error:
        reason = f"{recorded.event.type} cannot follow what came before it: {error}"
        raise MalformedEvent(recorded.position, recorded.entity.subject, reason) from error


def _as_of(
    decider: Decider[Any, State], history: Sequence[Recorded], position: Position
) -> tuple[State, list[Event]]:
    events = [recorded.event for recorded in history if recorded.position <= position]
    return fold_onto(decider, decider.initial, events), events


def fold_onto(decider: Decider[Any, State], state: State, events: Sequence[Event]) -> State:
    """The state after further events."""
    for event in events:
        state = decider.evolve(state, event)
    return state

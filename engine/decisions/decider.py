"""Decider: the one shape of every aggregate, and Refused, the one shape of every no.

A decider is three pure values: the state before the first event, how an event changes the state,
and which events a command yields in a state. Time, ids and facts about other entities come in with
the command, so the same history and the same command always give the same events.

    state = fold(TENANT, [TenantCreated(name="acme")])
    events = TENANT.decide(state, RevokeKey(key_id="k1"))   # raises UnknownKey

Repeating a command whose effect already holds yields no events. The state of an entity without
events is None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import ClassVar, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from events import Event

Command = TypeVar("Command")
State = TypeVar("State")
Code: TypeAlias = Literal["invalid", "not_found", "conflict"]

_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


class Decider(msgspec.Struct, Generic[Command, State], frozen=True, kw_only=True):
    """What can happen to one kind of entity."""

    initial: State
    """Before the first event."""
    evolve: Callable[[State, Event], State]
    """Total over every history that `decide` can write. Raises ForeignEvent."""
    decide: Callable[[State, Command], Sequence[Event]]
    """The events to append, all or nothing; empty when the effect already holds. Raises Refused."""


def fold(decider: Decider[Command, State], events: Iterable[Event]) -> State:
    """The state after a whole history, oldest event first. Takes time linear in its length."""
    state = decider.initial
    for event in events:
        state = decider.evolve(state, event)
    return state


class ForeignEvent(TypeError):
    """An event that cannot be part of this entity's history: a programmer's error, or a bad log."""

    def __init__(self, event: Event) -> None:
        super().__init__(f"{event.type} cannot happen here")
        self.event = event


class Refused(Exception):
    """A command that is told no. `str(refusal)` is the sentence for the person who asked.

    Each refusal is a subclass of one of the three below and carries its data as attributes.
    """

    code: ClassVar[Code]
    fields: Mapping[str, str] = _NO_FIELDS
    """Of an invalid command: path of each bad field -> what is wrong with it."""


class Invalid(Refused):
    """The command itself is wrong, whatever the state."""

    code: ClassVar[Code] = "invalid"

    def __init__(self, fields: Mapping[str, str]) -> None:
        super().__init__("; ".join(f"{path} {problem}" for path, problem in fields.items()))
        self.fields = fields


class NotFound(Refused):
    """The command names something that does not exist."""

    code: ClassVar[Code] = "not_found"


class Conflict(Refused):
    """The command does not fit the state; it might in another."""

    code: ClassVar[Code] = "conflict"

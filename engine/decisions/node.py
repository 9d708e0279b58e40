"""Nodes: processes that execute versions, and what is resident on them. Entity `system/node/<id>`.

The reports of a node are facts about memory: they are refused only from a node that is out, because
nothing on a node that is lost or left counts as resident.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec.structs import replace

from engine.decisions.decider import Conflict, Decider, ForeignEvent, Invalid, NotFound
from engine.decisions.maps import EMPTY, with_entry, without_entry
from events import Event
from events.catalogue.nodes import (
    NodeDraining,
    NodeJoined,
    NodeLeft,
    NodeLost,
    VersionLoaded,
    VersionLoadFailed,
    VersionRef,
    VersionUnloaded,
)

LoadFailure: TypeAlias = Literal["artifact", "digest", "runtime", "memory", "timeout"]
UnloadReason: TypeAlias = Literal["evicted", "retired", "requested", "crashed"]
DETAIL_CHARS_MAX: Final = 2_000

# ---------------------------------------------------------------------------------------- Commands


class Join(msgspec.Struct, frozen=True, kw_only=True):
    """The node (re)started and holds nothing. Raises InvalidNode."""

    memory_budget_bytes: int
    runtimes: tuple[str, ...]


class Drain(msgspec.Struct, frozen=True, kw_only=True):
    """Finish what is there, take no new version. Raises UnknownNode, NodeNotJoined."""

    reason: str = ""


class Lose(msgspec.Struct, frozen=True, kw_only=True):
    """The node's lease ran out. Raises UnknownNode."""

    reason: str = ""


class Leave(msgspec.Struct, frozen=True, kw_only=True):
    """The node stopped cleanly, perhaps after it was given up for lost. Raises UnknownNode."""


class ReportLoaded(msgspec.Struct, frozen=True, kw_only=True):
    """Loaded and warmed. Raises UnknownNode, NodeNotJoined, InvalidReport."""

    version: VersionRef
    memory_bytes: int
    """Measured after warming; a later report with another size replaces it."""
    load_ms: float


class ReportLoadFailed(msgspec.Struct, frozen=True, kw_only=True):
    """An attempt to load failed. Raises UnknownNode, NodeNotJoined.

    An attempt leaves nothing that could already hold, so each report is an event of its own: a swap
    that waits for a second attempt must hear that it failed as the first did.
    """

    version: VersionRef
    reason: LoadFailure
    detail: str
    """Cut at DETAIL_CHARS_MAX."""


class ReportUnloaded(msgspec.Struct, frozen=True, kw_only=True):
    """No longer resident. Raises UnknownNode, NodeNotJoined."""

    version: VersionRef
    reason: UnloadReason


Command: TypeAlias = Join | Drain | Lose | Leave | ReportLoaded | ReportLoadFailed | ReportUnloaded


class InvalidNode(Invalid):
    """A node without memory."""


class InvalidReport(Invalid):
    """A measurement below zero."""


class UnknownNode(NotFound):
    """Every command but Join needs a node."""

    def __init__(self) -> None:
        super().__init__("there is no such node")


class NodeNotJoined(Conflict):
    """The node is lost or left; it has to join again first."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"the node is {status}")
        self.status = status


# ------------------------------------------------------------------------------------------- State

Status: TypeAlias = Literal["joined", "draining", "lost", "left"]


class Node(msgspec.Struct, frozen=True, kw_only=True):
    """A node that has joined at least once."""

    status: Status
    memory_budget_bytes: int
    runtimes: tuple[str, ...]
    resident: Mapping[VersionRef, int] = EMPTY
    """Version -> measured bytes. Empty when the node is lost or left."""

    @property
    def alive(self) -> bool:
        """It is there, and its reports count."""
        return self.status in ("joined", "draining")

    @property
    def serves(self) -> bool:
        """It takes new versions and new requests."""
        return self.status == "joined"


State: TypeAlias = Node | None

# ------------------------------------------------------------------------------------------ evolve


def evolve(state: State, event: Event) -> State:
    """The node after the event."""
    if isinstance(event, NodeJoined):
        return Node(
            status="joined",
            memory_budget_bytes=event.memory_budget_bytes,
            runtimes=event.runtimes,
        )
    if state is None:
        raise ForeignEvent(event)
    match event:
        case NodeDraining():
            return replace(state, status="draining")
        case NodeLost():
            return replace(state, status="lost", resident=EMPTY)
        case NodeLeft():
            return replace(state, status="left", resident=EMPTY)
        case VersionLoaded():
            resident = with_entry(state.resident, event.version, event.memory_bytes)
            return replace(state, resident=resident)
        case VersionLoadFailed():
            return state
        case VersionUnloaded():
            return replace(state, resident=without_entry(state.resident, event.version))
        case _:
            raise ForeignEvent(event)


# ------------------------------------------------------------------------------------------ decide


def decide(state: State, command: Command) -> Sequence[Event]:
    """The events of the command, or a refusal."""
    if isinstance(command, Join):
        return _join(state, command)
    if state is None:
        raise UnknownNode
    match command:
        case Drain():
            return _drain(state, command)
        case Lose():
            return (NodeLost(reason=command.reason[:DETAIL_CHARS_MAX]),) if state.alive else ()
        case Leave():
            return () if state.status == "left" else (NodeLeft(),)
        case ReportLoaded():
            return _report_loaded(state, command)
        case ReportLoadFailed():
            return _report_load_failed(state, command)
        case ReportUnloaded():
            return _report_unloaded(state, command)


def _join(state: State, command: Join) -> Sequence[Event]:
    if command.memory_budget_bytes <= 0:
        raise InvalidNode({"memory_budget_bytes": "must be above 0"})
    joined = NodeJoined(memory_budget_bytes=command.memory_budget_bytes, runtimes=command.runtimes)
    # A node that holds something and joins has restarted: what it held is gone.
    return () if state == evolve(None, joined) else (joined,)


def _drain(state: Node, command: Drain) -> Sequence[Event]:
    _check_alive(state)
    if state.status == "draining":
        return ()
    return (NodeDraining(reason=command.reason[:DETAIL_CHARS_MAX]),)


def _report_loaded(state: Node, command: ReportLoaded) -> Sequence[Event]:
    _check_alive(state)
    measured = {"memory_bytes": command.memory_bytes, "load_ms": command.load_ms}
    if bad := [name for name, value in measured.items() if not 0 <= value < inf]:
        raise InvalidReport(dict.fromkeys(bad, "must be 0 or more"))
    if state.resident.get(command.version) == command.memory_bytes:
        return ()
    return (
        VersionLoaded(
            version=command.version, memory_bytes=command.memory_bytes, load_ms=command.load_ms
        ),
    )


def _report_load_failed(state: Node, command: ReportLoadFailed) -> Sequence[Event]:
    _check_alive(state)
    detail = command.detail[:DETAIL_CHARS_MAX]
    return (VersionLoadFailed(version=command.version, reason=command.reason, detail=detail),)


def _report_unloaded(state: Node, command: ReportUnloaded) -> Sequence[Event]:
    _check_alive(state)
    if command.version not in state.resident:
        return ()
    return (VersionUnloaded(version=command.version, reason=command.reason),)


def _check_alive(state: Node) -> None:
    if not state.alive:
        raise NodeNotJoined(state.status)


# ----------------------------------------------------------------------------------------- Decider

DECIDER: Final[Decider[Command, State]] = Decider(initial=None, evolve=evolve, decide=decide)

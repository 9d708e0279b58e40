"""Asking nodes to load and to unload: the other end of `node.<id>.load` and `.unload`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import ClassVar, Final

import msgspec

from events import LogError, Position
from events.bus import Bus
from events.catalogue.nodes import VersionRef
from events.errors import NoResponders, RemoteFailure
from handlers.routing import Routing
from handlers.worker import (
    LoadReply,
    LoadRequest,
    UnloadReply,
    UnloadRequest,
    control_subject,
    unload_subject,
)

LOAD_SECONDS: Final = 60.0
UNLOAD_SECONDS: Final = 60.0
"""A node lets the requests under way finish, see `engine.runtimes.residency.DRAIN_SECONDS`."""


class LoadRefused(Exception):
    """No node could load the version; `detail` is what the nodes said."""

    code: ClassVar[str] = "runtime_failed"

    def __init__(self, ref: VersionRef, detail: str) -> None:
        super().__init__(f"{ref} cannot be loaded: {detail}")
        self.ref = ref


class NoNodes(Exception):
    """There is no node that takes versions."""

    code: ClassVar[str] = "unavailable"

    def __init__(self) -> None:
        super().__init__("no node has joined")


class UnloadRefused(Exception):
    """A node did not let the version go; `code` is `conflict` if an endpoint needs it by now."""

    def __init__(self, ref: VersionRef, code: str, detail: str) -> None:
        super().__init__(f"{ref} is not unloaded everywhere: {detail}")
        self.ref = ref
        self.code = code


class Nodes:
    """Every node that takes new versions."""

    def __init__(self, *, routing: Routing, bus: Bus) -> None:
        self._routing = routing
        self._bus = bus

    async def ensure_resident(self, refs: Iterable[VersionRef], *, position: Position) -> Position:
        """Have each version resident on every serving node; a position at which it is so.

        `position` is where the registrations can be seen. A node that fails is passed over while
        another succeeds. Raises LoadRefused, NoNodes.
        """
        missing = [ref for ref in refs if not self._everywhere(ref)]
        positions = await asyncio.gather(*(self._load(ref, position) for ref in missing))
        return max(positions, default=self._routing.position)

    async def unload(self, ref: VersionRef, *, position: Position) -> Position:
        """Have the version gone from every serving node; a position at which it is so.

        `position` is where it can be seen that no endpoint needs it. Raises UnloadRefused, after
        every node has been asked.
        """
        payload = msgspec.msgpack.encode(UnloadRequest(version=ref, position=position))
        answers = await asyncio.gather(
            *(self._let_go(node_id, payload) for node_id, _ in self._routing.serving_nodes()),
            return_exceptions=True,
        )
        refusals = [answer for answer in answers if isinstance(answer, BaseException)]
        if refusals:
            needed = any(isinstance(r, RemoteFailure) and r.code == "conflict" for r in refusals)
            told = "; ".join(sorted({_told(refusal) for refusal in refusals}))
            raise UnloadRefused(ref, "conflict" if needed else "unavailable", told)
        return max((answer for answer in answers if isinstance(answer, int)), default=position)

    def _everywhere(self, ref: VersionRef) -> bool:
        states = [state for _, state in self._routing.serving_nodes()]
        return bool(states) and all(ref in state.resident for state in states)

    async def _load(self, ref: VersionRef, position: Position) -> Position:
        node_ids = [node_id for node_id, _ in self._routing.serving_nodes()]
        if not node_ids:
            raise NoNodes
        payload = msgspec.msgpack.encode(LoadRequest(version=ref, position=position))
        answers = await asyncio.gather(
            *(self._ask(node_id, payload) for node_id in node_ids), return_exceptions=True
        )
        loaded = [answer for answer in answers if isinstance(answer, int)]
        if not loaded:
            raise LoadRefused(ref, "; ".join(sorted({_told(answer) for answer in answers})))
        return max(loaded)

    async def _ask(self, node_id: str, payload: bytes) -> Position:
        reply = await self._bus.request(control_subject(node_id), payload, timeout_s=LOAD_SECONDS)
        return msgspec.msgpack.decode(reply, type=LoadReply).position

    async def _let_go(self, node_id: str, payload: bytes) -> Position:
        reply = await self._bus.request(unload_subject(node_id), payload, timeout_s=UNLOAD_SECONDS)
        return msgspec.msgpack.decode(reply, type=UnloadReply).position


def _told(answer: int | BaseException) -> str:
    if isinstance(answer, RemoteFailure):
        return answer.detail
    if isinstance(answer, NoResponders):
        return "the node does not answer"
    if isinstance(answer, LogError):
        return str(answer)
    assert isinstance(answer, BaseException)
    raise answer

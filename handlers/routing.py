"""What gateways, nodes and reactions know: the log folded in memory.

Guarantees: the fold is a function of the log up to `position`. Does not guarantee to be up to date:
who needs an event to be in, waits with `reach`. `handlers.following` feeds it.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TypeAlias
from uuid import UUID

from engine.decisions import endpoint, model, node
from events import Position, Recorded
from events.catalogue.nodes import VersionLoadFailed, VersionRef
from handlers.keys import Keyring
from handlers.routes import (
    LoadFailure,
    Route,
    SavedFailure,
    Snapshot,
    ref_of,
    restored_node,
    restored_route,
    route_after,
    saved_node,
    saved_route,
)

_Waiter: TypeAlias = tuple[Position, int, asyncio.Future[None]]
"""Until when, in which order, who."""


class Routing:
    """The fold. One instance per process, shared by whatever runs in it."""

    def __init__(self) -> None:
        self.position: Position = 0
        self.last_event: UUID | None = None
        """The id of the event at `position`; None when that was passed over."""
        self.keyring = Keyring()
        self.routes: dict[tuple[str, str], Route] = {}
        """(tenant, endpoint) -> route."""
        self.models: dict[tuple[str, str], model.Model] = {}
        """(tenant, model) -> model."""
        self.nodes: dict[str, node.Node] = {}
        self.failures: dict[tuple[str, VersionRef], LoadFailure] = {}
        """(node, version) -> its last failed load."""
        self._swapping: set[tuple[str, str]] = set()
        self._rolling: set[tuple[str, str]] = set()
        self._alarmed: set[tuple[str, str]] = set()
        self._pins: Counter[VersionRef] = Counter()
        self._waiting: list[_Waiter] = []
        self._ticket = itertools.count()

    def apply(self, recorded: Recorded) -> None:
        """Fold one event and wake whoever waits for its position."""
        match recorded.entity.aggregate:
            case "endpoint":
                self._apply_endpoint(recorded)
            case "model":
                self._apply_model(recorded)
            case "node":
                self._apply_node(recorded)
            case "tenant":
                self.keyring.apply(recorded)
            case _:
                pass
        self.skip_to(recorded.position)
        self.last_event = recorded.id

    def skip_to(self, position: Position) -> None:
        """Everything up to `position` is folded, or is nothing to us."""
        self.position = max(self.position, position)
        self.last_event = None
        while self._waiting and self._waiting[0][0] <= self.position:
            _, _, reached = heapq.heappop(self._waiting)
            if not reached.done():
                reached.set_result(None)

    async def reach(self, position: Position) -> None:
        """Return once everything up to `position` is folded. Bound it with asyncio.timeout."""
        if position <= self.position:
            return
        reached = asyncio.get_running_loop().create_future()
        waiter = (position, next(self._ticket), reached)
        heapq.heappush(self._waiting, waiter)
        try:
            await reached
        except asyncio.CancelledError:
            self._forget(waiter)
            raise

    @property
    def entities(self) -> int:
        """How many it holds."""
        return len(self.routes) + len(self.models) + len(self.nodes) + len(self.keyring.tenants)

    @property
    def pinned(self) -> Iterable[VersionRef]:
        """What must be resident: routed to, a rollback's target, or about to be swapped in."""
        return self._pins.keys()

    def routed(self) -> frozenset[VersionRef]:
        """What takes traffic, or copies of it, or is a fallback."""
        return frozenset(
            ref_of(route, version)
            for route in self.routes.values()
            for version in route.state.routed_versions
        )

    def swapping(self) -> list[Route]:
        """The endpoints with a pending swap."""
        return [self.routes[key] for key in sorted(self._swapping)]

    def rolling(self) -> list[Route]:
        """The endpoints with a live rollout."""
        return [self.routes[key] for key in sorted(self._rolling)]

    def alarmed(self) -> list[Route]:
        """The endpoints with an open alert."""
        return [self.routes[key] for key in sorted(self._alarmed)]

    def serving_nodes(self) -> Iterator[tuple[str, node.Node]]:
        """The nodes that take new versions."""
        return ((id_, state) for id_, state in self.nodes.items() if state.status == "joined")

    def resident(self, tenant: str, model_name: str) -> frozenset[str]:
        """The versions of a model that some node can serve now."""
        return frozenset(
            ref.version
            for state in self.nodes.values()
            for ref in state.resident
            if ref.tenant == tenant and ref.model == model_name
        )

    def routed_by(self, ref: VersionRef) -> frozenset[str]:
        """The endpoints that route to a version, or would after a rollback or a swap."""
        return frozenset(route.entity.id for route in self.routes.values() if ref in route.pins)

    def asked_at(self, ref: VersionRef) -> Position:
        """Where a pending swap last asked for a version; 0 if none does."""
        return max(
            (
                route.swap_position
                for route in self.swapping()
                if route.state.swap is not None
                and ref == ref_of(route, route.state.swap.to_version)
            ),
            default=0,
        )

    def is_retired(self, ref: VersionRef) -> bool:
        state = self.models.get((ref.tenant, ref.model))
        return state is not None and ref.version in state.retired

    def snapshot(self) -> Snapshot:
        """Everything folded so far."""
        return Snapshot(
            position=self.position,
            last_event=self.last_event,
            routes=[saved_route(route) for route in self.routes.values()],
            models=[(*key, state) for key, state in self.models.items()],
            nodes=[saved_node(id_, state) for id_, state in self.nodes.items()],
            failures=[
                SavedFailure(node=id_, version=ref, failure=failure)
                for (id_, ref), failure in self.failures.items()
            ],
            tenants=list(self.keyring.tenants.items()),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Begin where a snapshot was taken. Only before the first event.

        Raises PolicyInvalid, and is still at the beginning, for a policy that means nothing here.
        """
        assert self.position == 0, "a fold that has begun cannot be restored"
        for route in [restored_route(saved) for saved in snapshot.routes]:
            self._place(route)
        self.models = {(tenant, name): state for tenant, name, state in snapshot.models}
        self.nodes = {saved.id: restored_node(saved) for saved in snapshot.nodes}
        self.failures = {(each.node, each.version): each.failure for each in snapshot.failures}
        for name, state in snapshot.tenants:
            self.keyring.restore(name, state)
        self.skip_to(snapshot.position)
        self.last_event = snapshot.last_event

    def _forget(self, waiter: _Waiter) -> None:
        if waiter in self._waiting:
            self._waiting.remove(waiter)
            heapq.heapify(self._waiting)

    def _apply_endpoint(self, recorded: Recorded) -> None:
        key = (recorded.entity.tenant, recorded.entity.id)
        before = self.routes.get(key)
        state = endpoint.DECIDER.evolve(before.state if before else None, recorded.event)
        assert state is not None, "an event leaves an endpoint that exists"
        self._place(route_after(recorded, state, before))

    def _place(self, after: Route) -> None:
        key = (after.entity.tenant, after.entity.id)
        before = self.routes.get(key)
        self.routes[key] = after
        for marked, found in (
            (after.state.swap is not None, self._swapping),
            (after.state.rollout is not None, self._rolling),
            (bool(after.state.alerts), self._alarmed),
        ):
            (found.add if marked else found.discard)(key)
        if before is None or before.pins != after.pins:
            self._pins.update(after.pins)
            self._unpin(before.pins if before is not None else frozenset())

    def _unpin(self, refs: frozenset[VersionRef]) -> None:
        for ref in refs:
            self._pins[ref] -= 1
            if not self._pins[ref]:
                del self._pins[ref]

    def _apply_model(self, recorded: Recorded) -> None:
        key = (recorded.entity.tenant, recorded.entity.id)
        state = model.DECIDER.evolve(self.models.get(key), recorded.event)
        assert state is not None, "an event leaves a model that exists"
        self.models[key] = state

    def _apply_node(self, recorded: Recorded) -> None:
        id_ = recorded.entity.id
        state = node.DECIDER.evolve(self.nodes.get(id_), recorded.event)
        assert state is not None, "an event leaves a node that exists"
        self.nodes[id_] = state
        if isinstance(recorded.event, VersionLoadFailed):
            self.failures[id_, recorded.event.version] = LoadFailure(
                position=recorded.position,
                reason=recorded.event.reason,
                detail=recorded.event.detail,
            )

"""What the fold of the log holds, and how it is kept: routes, failed loads, snapshots."""

from __future__ import annotations

from uuid import UUID

import msgspec
from msgspec.structs import replace

from engine.decisions import endpoint, model, node, tenant
from engine.decisions.maps import EMPTY
from engine.routing import Table, compile_policy, endpoint_salt
from events import EntityId, Position, Recorded
from events.catalogue.nodes import VersionRef


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint, ready to decide."""

    entity: EntityId
    state: endpoint.Endpoint
    table: Table
    swap_position: Position
    """Where the pending swap was requested; 0 without one."""
    pins: frozenset[VersionRef]
    """What must be resident for it."""
    created_s: int
    """When, in seconds since 1970; 0 if a snapshot did not tell."""


class LoadFailure(msgspec.Struct, frozen=True, kw_only=True):
    """A node's last failed load of a version."""

    position: Position
    reason: str
    detail: str


class SavedRoute(msgspec.Struct, frozen=True, kw_only=True):
    """A route without its table, which is compiled again."""

    entity: EntityId
    state: endpoint.Endpoint
    table_position: Position
    swap_position: Position
    created_s: int = 0


class SavedNode(msgspec.Struct, frozen=True, kw_only=True):
    """A node whose residents are pairs: no map key but text survives every encoding."""

    id: str
    state: node.Node
    resident: list[tuple[VersionRef, int]]


class SavedFailure(msgspec.Struct, frozen=True, kw_only=True):
    node: str
    version: VersionRef
    failure: LoadFailure


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The fold as data."""

    position: Position
    last_event: UUID | None
    routes: list[SavedRoute]
    models: list[tuple[str, str, model.Model]]
    nodes: list[SavedNode]
    failures: list[SavedFailure]
    tenants: list[tuple[str, tenant.Tenant]]


def route_after(recorded: Recorded, state: endpoint.Endpoint, before: Route | None) -> Route:
    """The route after an event; a policy that stays is not compiled again."""
    if before is not None and before.state.policy is state.policy:
        table = before.table
    else:
        table = _table(recorded.entity, state, recorded.position)
    return Route(
        entity=recorded.entity,
        state=state,
        table=table,
        swap_position=_swap_position(recorded, state, before),
        pins=_pins(recorded.entity, state),
        created_s=int(recorded.time.timestamp()) if before is None else before.created_s,
    )


def _table(entity: EntityId, state: endpoint.Endpoint, position: Position) -> Table:
    salt = endpoint_salt(entity.tenant, entity.id)
    return compile_policy(state.policy, salt=salt, position=position)


def saved_route(route: Route) -> SavedRoute:
    return SavedRoute(
        entity=route.entity,
        state=route.state,
        table_position=route.table.position,
        swap_position=route.swap_position,
        created_s=route.created_s,
    )


def restored_route(saved: SavedRoute) -> Route:
    """Raises PolicyInvalid."""
    return Route(
        entity=saved.entity,
        state=saved.state,
        table=_table(saved.entity, saved.state, saved.table_position),
        swap_position=saved.swap_position,
        pins=_pins(saved.entity, saved.state),
        created_s=saved.created_s,
    )


def saved_node(id_: str, state: node.Node) -> SavedNode:
    return SavedNode(
        id=id_, state=replace(state, resident=EMPTY), resident=list(state.resident.items())
    )


def restored_node(saved: SavedNode) -> node.Node:
    return replace(saved.state, resident=dict(saved.resident))


def _swap_position(recorded: Recorded, state: endpoint.Endpoint, before: Route | None) -> Position:
    if state.swap is None:
        return 0
    if before is not None and before.state.swap == state.swap:
        return before.swap_position
    return recorded.position


def _pins(entity: EntityId, state: endpoint.Endpoint) -> frozenset[VersionRef]:
    return frozenset(
        VersionRef(tenant=entity.tenant, model=state.model, version=version)
        for version in state.pinned_versions
    )


def ref_of(route: Route, version: str) -> VersionRef:
    return VersionRef(tenant=route.entity.tenant, model=route.state.model, version=version)

"""What this process routes and serves now: `handlers.http.directory.Directory` over the fold.

Guarantees: an evaluation is the decision that a request at the same moment, with the same key and
attributes, would get from this process's gateway. Nothing is executed or counted.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from engine.decisions.model import Model
from engine.routing import Decision, KeyNotUsed, Table, explain_key
from events import Position
from events.catalogue.nodes import VersionRef
from handlers.http.directory import Evaluation, IndexEntry, ServedEndpoint, ServedModel
from handlers.routes import LoadFailure, Route
from handlers.routing import Routing
from projections import StalePosition

REACH_SECONDS: Final = 2.0


class Directory:
    """Reads the fold; keeps nothing."""

    def __init__(self, routing: Routing, *, clock: Callable[[], float] = time.time) -> None:
        self._routing = routing
        self._clock = clock

    async def reach(self, position: Position) -> None:
        try:
            async with asyncio.timeout(REACH_SECONDS):
                await self._routing.reach(position)
        except TimeoutError:
            raise StalePosition(position, self._routing.position) from None

    def evaluate(
        self, tenant: str, *, endpoint: str, key: str, attributes: Mapping[str, str]
    ) -> Evaluation | None:
        route = self._routing.routes.get((tenant, endpoint))
        return None if route is None else self._evaluated(route, key, attributes)

    def evaluate_all(
        self, tenant: str, *, key: str, attributes: Mapping[str, str]
    ) -> Sequence[Evaluation]:
        return [self._evaluated(route, key, attributes) for route in self._routes(tenant)]

    def endpoint(self, tenant: str, endpoint: str) -> ServedEndpoint | None:
        route = self._routing.routes.get((tenant, endpoint))
        if route is None:
            return None
        state = route.state
        registered = self._routing.models[tenant, state.model].versions
        held = sorted(ref.version for ref in route.pins)
        return ServedEndpoint(
            name=endpoint,
            model=state.model,
            active=state.active,
            taking=_taking(route.table),
            versions={version: registered[version].runtime for version in held},
            resident=self._routing.resident(tenant, state.model),
        )

    def model(self, tenant: str, endpoint: str) -> ServedModel | None:
        route = self._routing.routes.get((tenant, endpoint))
        return None if route is None else _model(route)

    def models(self, tenant: str) -> Sequence[ServedModel]:
        return [_model(route) for route in self._routes(tenant)]

    def index(self, tenant: str) -> Sequence[IndexEntry]:
        names = sorted(name for owner, name in self._routing.models if owner == tenant)
        return [
            self._entry(VersionRef(tenant, name, version), model)
            for name in names
            for model in [self._routing.models[tenant, name]]
            for version in sorted(model.versions)
        ]

    def _routes(self, tenant: str) -> list[Route]:
        """Those of the tenant, by name."""
        names = sorted(name for owner, name in self._routing.routes if owner == tenant)
        return [self._routing.routes[tenant, name] for name in names]

    def _evaluated(self, route: Route, key: str, attributes: Mapping[str, str]) -> Evaluation:
        decision = self._decision(route.table, key, attributes)
        rule = None if decision is None else decision.rule
        split = next((r.split for r in route.table.rules if r.name == rule), route.table.split)
        shared = len(split.versions) > 1
        return Evaluation(
            endpoint=route.entity.id,
            model=route.state.model,
            version=None if decision is None else decision.version,
            reason="TARGETING_MATCH" if rule is not None else "SPLIT" if shared else "STATIC",
            rule=rule,
            position=route.table.position,
        )

    def _decision(self, table: Table, key: str, attributes: Mapping[str, str]) -> Decision | None:
        """None if no key decides."""
        try:
            return explain_key(table, key, int(self._clock() * 1_000), attributes)
        except KeyNotUsed:
            return None

    def _entry(self, ref: VersionRef, model: Model) -> IndexEntry:
        if ref.version in self._routing.resident(ref.tenant, ref.model):
            return IndexEntry(name=ref.model, version=ref.version, state="READY", reason="")
        failure = self._last_failure(ref)
        if ref.version in model.retired:
            reason = "retired"
        elif failure is not None:
            reason = f"{failure.reason}: {failure.detail}"
        elif ref in self._routing.pinned:
            return IndexEntry(name=ref.model, version=ref.version, state="LOADING", reason="")
        else:
            reason = "not loaded"
        return IndexEntry(name=ref.model, version=ref.version, state="UNAVAILABLE", reason=reason)

    def _last_failure(self, ref: VersionRef) -> LoadFailure | None:
        failures = (
            failure
            for (node_id, failed), failure in self._routing.failures.items()
            if failed == ref and self._routing.nodes[node_id].serves
        )
        return max(failures, key=lambda failure: failure.position, default=None)


def _model(route: Route) -> ServedModel:
    return ServedModel(name=route.entity.id, created_s=route.created_s)


def _taking(table: Table) -> frozenset[str]:
    return frozenset(table.split.versions).union(*(rule.split.versions for rule in table.rules))

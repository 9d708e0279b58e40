"""Endpoints: what they route to, and the way back.

Versions are loaded before an endpoint names them: whoever creates an endpoint or sets a policy
waits for the nodes, and from then on every request has an answer.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

from msgspec.structs import replace

from engine.decisions import endpoint as endpoints
from engine.decisions import model as models
from engine.decisions.policy import mentions
from events import EntityId, Metadata, Position
from events.catalogue.endpoints import Policy, RolledBack, Severity, SwapCompleted, SwapFailed
from events.catalogue.nodes import VersionRef
from handlers.commands import Contended, Outcome
from handlers.http.views import Applied, Explanation, RollbackView
from handlers.operations.base import OperationsBase, applied
from handlers.questions import At
from projections import results

INSISTED_ATTEMPTS_MAX: Final = 20
"""A rollback wins also against writers that are faster every time; so does ending a rollout."""


class EndpointOperations(OperationsBase):
    async def create_endpoint(
        self, tenant: str, *, endpoint: str, model: str, version: str, metadata: Metadata
    ) -> tuple[Applied, results.Endpoint]:
        self._check_quota(tenant, "endpoints", endpoint)
        registered = await self._prepare(tenant, model, {version})
        command = endpoints.CreateEndpoint(
            model=model,
            version=version,
            registered=registered,
            resident=self._routing.resident(tenant, model),
        )
        outcome = await self._on_endpoint(tenant, endpoint, command, metadata)
        return applied(outcome), await self._seen(tenant, endpoint, outcome.position)

    async def set_policy(
        self, tenant: str, *, endpoint: str, policy: Policy, metadata: Metadata
    ) -> results.Endpoint:
        model = await self._model_of(tenant, endpoint)
        named = {version for _, version in mentions(policy)}
        registered = await self._prepare(tenant, model, named)
        command = endpoints.SetPolicy(
            policy=policy,
            registered=registered,
            resident=self._routing.resident(tenant, model),
        )
        outcome = await self._on_endpoint(tenant, endpoint, command, metadata)
        return await self._seen(tenant, endpoint, outcome.position)

    async def swap(
        self, tenant: str, *, endpoint: str, to: str, timeout_s: float, metadata: Metadata
    ) -> results.Swap:
        """Ask for a swap; returns when it is on the log (`completed` if it was so)."""
        model = await self._model_of(tenant, endpoint)
        _, usable = await self._usable(tenant, model)
        command = endpoints.RequestSwap(
            swap_id=str(metadata.event_id(0)),
            to=to,
            deadline=metadata.time + timedelta(seconds=timeout_s),
            registered=usable,
        )
        outcome = await self._on_endpoint(tenant, endpoint, command, metadata)
        view = await self.endpoint_at(tenant, endpoint=endpoint, at=outcome.position)
        if view.swap is not None and view.swap.to == to and view.swap.state != "failed":
            return view.swap
        return results.Swap(
            id=command.swap_id,
            from_=to,
            to=to,
            state="completed",
            requested_at=metadata.time,
            deadline=command.deadline,
            duration_ms=0.0,
            position=outcome.position,
        )

    async def swap_ended(self, tenant: str, *, endpoint: str, swap_id: str) -> results.Swap:
        """Wait until the swap has completed or failed, as every live gateway sees it."""
        while True:
            position = self._routing.position
            view = await self.endpoint_at(tenant, endpoint=endpoint, at=None)
            if view.swap is not None and view.swap.id == swap_id:
                if view.swap.state != "requested":
                    await self._gateways.applied(view.position)
                    return view.swap
                await self._not_pending(tenant, endpoint, swap_id, after=view.position)
                continue
            ended = await self._ended_before(tenant, endpoint, swap_id)
            if ended is not None:
                return ended
            await self._routing.reach(position + 1)

    async def rollback(
        self, tenant: str, *, endpoint: str, reason: str, metadata: Metadata
    ) -> RollbackView:
        """Returns when every live gateway has applied it."""
        began = time.perf_counter()
        command = endpoints.RollBack(reason=reason)
        outcome = await self._insist(tenant, endpoint, command, metadata)
        await self._gateways.applied(outcome.position)
        took_ms = round((time.perf_counter() - began) * 1_000, 3)
        done = await self._last_rollback(tenant, endpoint, outcome)
        return RollbackView(
            from_=done.from_versions[-1],
            to=done.to_version,
            reason=done.reason,
            duration_ms=took_ms,
            position=outcome.position,
        )

    async def raise_alert(
        self,
        tenant: str,
        *,
        endpoint: str,
        kind: str,
        severity: Severity,
        version: str | None,
        detail: str,
        metadata: Metadata,
    ) -> results.Alert:
        """A critical alert on the newest version rolls back; returns when every gateway has it.

        While an alert is open that says as much already, that one is answered.
        """
        alert_id = str(metadata.event_id(0))
        command = endpoints.RaiseAlert(
            alert_id=alert_id, kind=kind, severity=severity, version=version, detail=detail
        )
        outcome = await self._on_endpoint(tenant, endpoint, command, metadata)
        await self._gateways.applied(outcome.position)
        assert outcome.state is not None, "there is no alert without an endpoint"
        known = endpoints.open_alert(outcome.state, command)
        assert known is not None, "the alert is open, or one that says as much"
        view = await self.endpoint_at(tenant, endpoint=endpoint, at=outcome.position)
        return next(alert for alert in view.alerts if alert.id == known.alert_id)

    async def endpoint_at(self, tenant: str, *, endpoint: str, at: At | None) -> results.Endpoint:
        return await self._questions.endpoint_at(tenant, endpoint=endpoint, at=at)

    async def endpoints_at(
        self, tenant: str, *, at: At, after: str, limit: int
    ) -> Sequence[results.Endpoint]:
        return await self._questions.endpoints_at(tenant, at=at, after=after, limit=limit)

    async def explain_key(
        self,
        tenant: str,
        *,
        endpoint: str,
        key: str,
        attributes: Mapping[str, str],
        at: At | None,
    ) -> Explanation:
        return await self._questions.explain_key(
            tenant, endpoint=endpoint, key=key, attributes=attributes, at=at
        )

    async def explain_receipt(self, tenant: str, *, receipt: str) -> Explanation:
        return await self._questions.explain_receipt(tenant, receipt=receipt)

    async def _on_endpoint(
        self, tenant: str, endpoint: str, command: endpoints.Command, metadata: Metadata
    ) -> Outcome[endpoints.State]:
        """Its events tell the time of the decision: what it needed may have had to be loaded."""
        entity = EntityId(tenant, "endpoint", endpoint)
        decided = replace(metadata, time=self._now())
        return await self._commands.handle(endpoints.DECIDER, entity, command, metadata=decided)

    async def _insist(
        self, tenant: str, endpoint: str, command: endpoints.Command, metadata: Metadata
    ) -> Outcome[endpoints.State]:
        for _ in range(INSISTED_ATTEMPTS_MAX - 1):
            try:
                return await self._on_endpoint(tenant, endpoint, command, metadata)
            except Contended:
                continue
        return await self._on_endpoint(tenant, endpoint, command, metadata)

    async def _ended_before(self, tenant: str, endpoint: str, swap_id: str) -> results.Swap | None:
        """A swap that ended before another one was asked for; None if the log we read from does
        not hold it yet."""
        for recorded in await self._questions.history(tenant, endpoint=endpoint, at=None):
            event = recorded.event
            if isinstance(event, SwapCompleted | SwapFailed) and event.swap_id == swap_id:
                await self._gateways.applied(recorded.position)
                ended = await self.endpoint_at(tenant, endpoint=endpoint, at=recorded.position)
                assert ended.swap is not None, "a swap that ended is shown until the next"
                return ended.swap
        return None

    async def _not_pending(
        self, tenant: str, endpoint: str, swap_id: str, *, after: Position
    ) -> None:
        """Returns when this process has seen the swap end."""
        await self._routing.reach(after)
        while (swap := self._routing.routes[tenant, endpoint].state.swap) is not None:
            if swap.swap_id != swap_id:
                return
            await self._routing.reach(self._routing.position + 1)

    async def _last_rollback(
        self, tenant: str, endpoint: str, outcome: Outcome[endpoints.State]
    ) -> RolledBack:
        """That of this command, or the one that made it unnecessary."""
        for event in outcome.events:
            if isinstance(event, RolledBack):
                return event
        history = await self._questions.history(tenant, endpoint=endpoint, at=outcome.position)
        events = (recorded.event for recorded in reversed(history))
        return next(event for event in events if isinstance(event, RolledBack))

    async def _seen(self, tenant: str, endpoint: str, position: Position) -> results.Endpoint:
        """The endpoint at a position, once every live gateway routes by it."""
        await self._gateways.applied(position)
        return await self.endpoint_at(tenant, endpoint=endpoint, at=position)

    async def _prepare(self, tenant: str, model: str, versions: set[str]) -> frozenset[str]:
        """Have those of the versions resident that may be used; all that may be used."""
        position, usable = await self._usable(tenant, model)
        refs = [
            VersionRef(tenant=tenant, model=model, version=version)
            for version in sorted(versions & usable)
        ]
        if refs:
            loaded = await self._nodes.ensure_resident(refs, position=position)
            await self._routing.reach(loaded)
        return usable

    async def _usable(self, tenant: str, model: str) -> tuple[Position, frozenset[str]]:
        position, state = await self._commands.load(
            models.DECIDER, EntityId(tenant, "model", model)
        )
        return position, state.usable if state is not None else frozenset()

    async def _model_of(self, tenant: str, endpoint: str) -> str:
        _, state = await self._commands.load(
            endpoints.DECIDER, EntityId(tenant, "endpoint", endpoint)
        )
        if state is None:
            raise endpoints.UnknownEndpoint
        return state.model

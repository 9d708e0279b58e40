"""Rollouts: how they are begun and steered by people, and what the windows say.

The steps themselves are taken by the reaction in `handlers.reactions.rollouts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

from msgspec.structs import replace

from engine.analysis import compare, shadow_report
from engine.decisions import endpoint as endpoints
from engine.decisions.decider import Invalid
from events import EntityId, Metadata, Position
from events.catalogue.endpoints import Analysis, Step, Verdict
from events.catalogue.traffic import WindowObserved
from handlers.http.views import CompareView, ShadowView
from handlers.operations.endpoints import EndpointOperations
from handlers.routes import Route
from projections import results

Steering: TypeAlias = endpoints.PauseRollout | endpoints.ResumeRollout | endpoints.PromoteRollout


class RolloutOperations(EndpointOperations):
    """Commands answer when every live gateway routes by what they led to."""

    async def start_rollout(
        self,
        tenant: str,
        *,
        endpoint: str,
        to: str,
        steps: tuple[Step, ...],
        analysis: Analysis,
        metadata: Metadata,
    ) -> results.Rollout:
        """The candidate is loaded first, once nothing else is wrong: what is refused has no event,
        not even that of a version that was loaded for nothing."""
        model = await self._model_of(tenant, endpoint)
        _, usable = await self._usable(tenant, model)
        command = endpoints.StartRollout(
            rollout_id=str(metadata.event_id(0)),
            to=to,
            steps=steps,
            analysis=analysis,
            now=self._now(),
            registered=usable,
            resident=frozenset({to}),
        )
        entity = EntityId(tenant, "endpoint", endpoint)
        await self._commands.check(endpoints.DECIDER, entity, command, metadata=metadata)
        self._check_is_known(analysis)
        await self._prepare(tenant, model, {to})
        resident = self._routing.resident(tenant, model)
        command = replace(command, now=self._now(), resident=resident)
        outcome = await self._on_endpoint(tenant, endpoint, command, metadata)
        live = outcome.state.rollout if outcome.state is not None else None
        rollout_id = live.rollout_id if live is not None else command.rollout_id
        return await self._rollout_seen(tenant, endpoint, rollout_id, outcome.position)

    async def promote_rollout(
        self,
        tenant: str,
        *,
        endpoint: str,
        rollout_id: str,
        to: Literal["next", "full"],
        from_step: int | None,
        metadata: Metadata,
    ) -> results.Rollout:
        model = await self._model_of(tenant, endpoint)
        command = endpoints.PromoteRollout(
            rollout_id=rollout_id,
            to=to,
            from_step=from_step,
            now=metadata.time,
            resident=self._routing.resident(tenant, model),
        )
        return await self._steer(tenant, endpoint, command, metadata)

    async def pause_rollout(
        self, tenant: str, *, endpoint: str, rollout_id: str, metadata: Metadata
    ) -> results.Rollout:
        command = endpoints.PauseRollout(rollout_id=rollout_id, now=metadata.time)
        return await self._steer(tenant, endpoint, command, metadata)

    async def resume_rollout(
        self, tenant: str, *, endpoint: str, rollout_id: str, metadata: Metadata
    ) -> results.Rollout:
        command = endpoints.ResumeRollout(rollout_id=rollout_id, now=metadata.time)
        return await self._steer(tenant, endpoint, command, metadata)

    async def abort_rollout(
        self, tenant: str, *, endpoint: str, rollout_id: str, reason: str, metadata: Metadata
    ) -> results.Rollout:
        command = endpoints.AbortRollout(
            rollout_id=rollout_id, reason="aborted", detail=reason, verdicts=()
        )
        outcome = await self._insist(tenant, endpoint, command, metadata)
        return await self._rollout_seen(tenant, endpoint, rollout_id, outcome.position)

    async def verdicts(
        self, tenant: str, *, endpoint: str, rollout_id: str
    ) -> Sequence[Verdict] | None:
        """What the evidence says at this moment; None when the rollout is not live."""
        route = self._routing.routes.get((tenant, endpoint))
        live = route.state.rollout if route is not None else None
        if route is None or live is None or live.rollout_id != rollout_id:
            return None
        return (await self._judging.judge(route)).verdicts

    async def compare(
        self,
        tenant: str,
        *,
        endpoint: str,
        baseline: str | None,
        candidate: str | None,
        since_s: float,
    ) -> CompareView:
        """Raises UnknownEndpoint, SameVersions."""
        route = self._route(tenant, endpoint)
        pair = _pair(route.state, baseline, candidate)
        windows = await self._windows(tenant, endpoint, since_s)
        live = route.state.rollout
        of_rollout = live is not None and pair == (live.baseline, live.candidate)
        return CompareView.of(
            compare(windows, baseline=pair[0], candidate=pair[1]),
            endpoint=endpoint,
            since_s=since_s,
            rollout=live.rollout_id if live is not None and of_rollout else None,
        )

    async def shadow_report(self, tenant: str, *, endpoint: str, since_s: float) -> ShadowView:
        """Raises UnknownEndpoint."""
        self._route(tenant, endpoint)
        report = shadow_report(await self._windows(tenant, endpoint, since_s))
        versions = {summary.version: summary for summary in report}
        return ShadowView(endpoint=endpoint, since_s=since_s, versions=versions)

    def _check_is_known(self, analysis: Analysis) -> None:
        """Raises InvalidRollout: a rollout whose answers nobody checks would never pass."""
        if analysis.check is not None and analysis.check not in self._checks:
            known = ", ".join(sorted(self._checks)) or "none"
            raise endpoints.InvalidRollout(
                {"analysis.check": f"no gateway knows {analysis.check}; known: {known}"}
            )

    async def _windows(self, tenant: str, endpoint: str, since_s: float) -> list[WindowObserved]:
        found = self._judging.windows(tenant, endpoint, since_s=since_s)
        return [window async for window in found]

    def _route(self, tenant: str, endpoint: str) -> Route:
        route = self._routing.routes.get((tenant, endpoint))
        if route is None:
            raise endpoints.UnknownEndpoint
        return route

    async def _steer(
        self, tenant: str, endpoint: str, command: Steering, metadata: Metadata
    ) -> results.Rollout:
        outcome = await self._on_endpoint(tenant, endpoint, command, metadata)
        return await self._rollout_seen(tenant, endpoint, command.rollout_id, outcome.position)

    async def _rollout_seen(
        self, tenant: str, endpoint: str, rollout_id: str, position: Position
    ) -> results.Rollout:
        """The rollout at a position, once every live gateway routes by it.

        It says that position, and not that of its own last event: an abort's policy comes after,
        and whoever waits for what the answer says must see it.
        """
        await self._gateways.applied(position)
        found = await self._questions.rollout_at(
            tenant, endpoint=endpoint, rollout_id=rollout_id, at=position
        )
        return replace(found, position=position)


def _pair(
    state: endpoints.Endpoint, baseline: str | None, candidate: str | None
) -> tuple[str, str]:
    """The live rollout's versions where none are given, else the one before and the newest."""
    live = state.rollout
    candidate = candidate or (live.candidate if live is not None else state.newest)
    if baseline is None:
        before = (state.active, state.previous, *state.arrivals)
        others = (version for version in before if version and version != candidate)
        baseline = live.baseline if live is not None else next(others, candidate)
    if baseline == candidate:
        raise SameVersions(candidate)
    return baseline, candidate


class SameVersions(Invalid):
    """There is nothing to compare a version with but itself."""

    def __init__(self, version: str) -> None:
        super().__init__({"baseline": f"must be another version than the candidate, {version}"})
        self.version = version

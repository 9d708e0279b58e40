"""Rollouts behind the ports of `handlers.http`, in memory; a part of `FakeOperations`.

They take the steps they are told to and judge nothing. What they refuse, real decisions refuse too.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Protocol

from msgspec.structs import replace

from engine.analysis import compare, shadow_report
from engine.decisions.decider import Conflict, Invalid, NotFound
from events import Event, Metadata, Position
from events.catalogue.endpoints import (
    Analysis,
    Policy,
    RolloutAborted,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutHeld,
    RolloutResumed,
    RolloutStarted,
    Step,
    Verdict,
)
from events.catalogue.traffic import ShadowWindow, WindowObserved
from handlers.http.rollout_ports import PromoteTo
from handlers.http.views import CompareView, ShadowView
from projections import results

HOLD_S_MAX = 30 * 24 * 3600
LIVE = ("running", "held")
VERDICT = Verdict(
    metric="error_rate",
    outcome="inconclusive",
    baseline_samples=950,
    candidate_samples=50,
    estimate=0.01,
    interval=(-0.02, 0.04),
    e_value=1.5,
    alpha=0.05,
    threshold=20.0,
)


class UnknownRollout(NotFound):
    pass


class RolloutOver(Conflict):
    pass


class _House(Protocol):
    """What rollouts use of the rest of the fake."""

    endpoints: dict[tuple[str, str], results.Endpoint]
    versions: dict[tuple[str, str, str], results.Version]

    def _endpoint(self, tenant: str, endpoint: str) -> results.Endpoint: ...

    async def _append(
        self, tenant: str, aggregate: str, id_: str, event: Event, metadata: Metadata
    ) -> Position: ...


class FakeRollouts(_House):
    rollouts: dict[tuple[str, str, str], results.Rollout]

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
        known = self._endpoint(tenant, endpoint)
        self._check(tenant, known, to, steps)
        hold_until = metadata.time + timedelta(seconds=steps[0].hold_s)
        event = RolloutStarted(
            rollout_id=str(metadata.event_id(0)),
            baseline=known.active,
            candidate=to,
            steps=steps,
            analysis=analysis,
            hold_until=hold_until,
            policy=_policy(known.active, to, steps[0].weight),
        )
        position = await self._append(tenant, "endpoint", endpoint, event, metadata)
        return self._keep(
            tenant,
            results.Rollout(
                id=event.rollout_id,
                endpoint=endpoint,
                baseline=known.active,
                candidate=to,
                state="running",
                step=0,
                weight=steps[0].weight,
                steps=list(steps),
                analysis=analysis,
                hold_until=hold_until,
                held_reason=None,
                reason=None,
                detail=None,
                verdicts=[],
                started_at=metadata.time,
                ended_at=None,
                updated_at=metadata.time,
                position=position,
            ),
        )

    def _check(
        self, tenant: str, known: results.Endpoint, to: str, steps: tuple[Step, ...]
    ) -> None:
        keys = [key for key in self.rollouts if key[:2] == (tenant, known.name)]
        if any(self.rollouts[key].state in LIVE for key in keys):
            raise RolloutOver("a rollout is under way")
        if (tenant, known.model, to) not in self.versions or to == known.active:
            raise Invalid({"to": "is no version that could be rolled out"})
        weights = [step.weight for step in steps]
        for index, step in enumerate(steps):
            if not 0 <= step.hold_s <= HOLD_S_MAX:
                raise Invalid({f"steps[{index}].hold_s": "is not within 0 s and 30 days"})
        if any(not 0 < w <= 100 for w in weights) or weights != sorted(set(weights)):
            raise Invalid({"steps": "weights do not grow within 0 and 100"})

    async def promote_rollout(
        self,
        tenant: str,
        *,
        endpoint: str,
        rollout_id: str,
        to: PromoteTo,
        from_step: int | None,
        metadata: Metadata,
    ) -> results.Rollout:
        live = self._live(tenant, endpoint, rollout_id)
        if from_step is not None and from_step > live.step:
            raise RolloutOver(f"step {from_step} is not in force")
        if from_step is not None and from_step < live.step:
            return live
        step = live.step + 1
        if to == "full" or step == len(live.steps):
            completed = RolloutCompleted(
                rollout_id=rollout_id,
                baseline=live.baseline,
                candidate=live.candidate,
                reason="promoted",
                policy=_policy(live.baseline, live.candidate, 100),
            )
            members: dict[str, Any] = {"state": "completed", "weight": 100.0, "reason": "promoted"}
            return await self._changed(tenant, live, completed, metadata, **members)
        weight = live.steps[step].weight
        advanced = RolloutAdvanced(
            rollout_id=rollout_id,
            step=step,
            reason="promoted",
            hold_until=metadata.time,
            policy=_policy(live.baseline, live.candidate, weight),
        )
        return await self._changed(tenant, live, advanced, metadata, step=step, weight=weight)

    async def pause_rollout(
        self, tenant: str, *, endpoint: str, rollout_id: str, metadata: Metadata
    ) -> results.Rollout:
        live = self._live(tenant, endpoint, rollout_id)
        event = RolloutHeld(rollout_id=rollout_id, step=live.step, reason="paused")
        return await self._changed(
            tenant, live, event, metadata, state="held", held_reason="paused", hold_until=None
        )

    async def resume_rollout(
        self, tenant: str, *, endpoint: str, rollout_id: str, metadata: Metadata
    ) -> results.Rollout:
        live = self._live(tenant, endpoint, rollout_id)
        event = RolloutResumed(rollout_id=rollout_id, step=live.step, hold_until=metadata.time)
        return await self._changed(tenant, live, event, metadata, state="running", held_reason=None)

    async def abort_rollout(
        self, tenant: str, *, endpoint: str, rollout_id: str, reason: str, metadata: Metadata
    ) -> results.Rollout:
        if (found := self._rollout(tenant, endpoint, rollout_id)).state == "aborted":
            return found
        live = self._live(tenant, endpoint, rollout_id)
        event = RolloutAborted(
            rollout_id=rollout_id,
            baseline=live.baseline,
            candidate=live.candidate,
            step=live.step,
            reason="aborted",
            detail=reason,
        )
        return await self._changed(
            tenant,
            live,
            event,
            metadata,
            state="aborted",
            weight=0.0,
            reason="aborted",
            detail=reason,
            ended_at=metadata.time,
        )

    async def verdicts(
        self, tenant: str, *, endpoint: str, rollout_id: str
    ) -> Sequence[Verdict] | None:
        return [VERDICT] if self._rollout(tenant, endpoint, rollout_id).state in LIVE else None

    async def compare(
        self,
        tenant: str,
        *,
        endpoint: str,
        baseline: str | None,
        candidate: str | None,
        since_s: float,
    ) -> CompareView:
        """Of no traffic at all, so every verdict is inconclusive."""
        known = self._endpoint(tenant, endpoint)
        if baseline is not None and baseline == candidate:
            raise Invalid({"baseline": "is the candidate"})
        comparison = compare(
            [], baseline=baseline or known.active, candidate=candidate or f"{known.active}+next"
        )
        return CompareView.of(comparison, endpoint=endpoint, since_s=since_s, rollout=None)

    async def shadow_report(self, tenant: str, *, endpoint: str, since_s: float) -> ShadowView:
        known = self._endpoint(tenant, endpoint)
        window = WindowObserved(
            gateway="g",
            start=known.created_at,
            versions={},
            shadows={"3.0.0": ShadowWindow(mirrored=9, compared=8, agreed=6)},
        )
        return ShadowView.of(shadow_report([window]), endpoint=endpoint, since_s=since_s)

    async def _changed(
        self,
        tenant: str,
        rollout: results.Rollout,
        event: Event,
        metadata: Metadata,
        **members: Any,
    ) -> results.Rollout:
        position = await self._append(tenant, "endpoint", rollout.endpoint, event, metadata)
        return self._keep(tenant, replace(rollout, position=position, **members))

    def _keep(self, tenant: str, rollout: results.Rollout) -> results.Rollout:
        self.rollouts[tenant, rollout.endpoint, rollout.id] = rollout
        return rollout

    def _rollout(self, tenant: str, endpoint: str, rollout_id: str) -> results.Rollout:
        self._endpoint(tenant, endpoint)
        found = self.rollouts.get((tenant, endpoint, rollout_id))
        if found is None:
            raise UnknownRollout("there is no such rollout")
        return found

    def _live(self, tenant: str, endpoint: str, rollout_id: str) -> results.Rollout:
        found = self._rollout(tenant, endpoint, rollout_id)
        if found.state not in LIVE:
            raise RolloutOver(f"the rollout is {found.state}")
        return found


def _policy(baseline: str, candidate: str, weight: float) -> Policy:
    return Policy(split={baseline: 100.0 - weight, candidate: weight})

"""Endpoints: policy, active and previous version, the rollout under way, the latest swap, alerts.

`active` is the version that last carried all traffic and was not rolled back from; `previous` the
one that did so before it, None after a rollback: as `engine.decisions.endpoint` folds them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import TypeAlias

from msgspec.structs import replace

from events.catalogue.endpoints import (
    AlertCleared,
    AlertRaised,
    EndpointCreated,
    Policy,
    PolicySet,
    RolledBack,
    RolloutAborted,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutHeld,
    RolloutResumed,
    RolloutStarted,
    SwapCompleted,
    SwapFailed,
    SwapRequested,
)
from events.event import Recorded
from projections.projection import Cached, On, Projection, Read
from projections.results import Alert, Endpoint, RolloutSummary, Swap
from projections.table import Row, Table
from projections.working import WorkingSet


class EndpointRow(Row, frozen=True, kw_only=True):
    name: str
    model: str
    policy: Policy
    active: str
    previous: str | None
    rollout: RolloutSummary | None
    swap: Swap | None
    alerts: tuple[Alert, ...]
    created_at: datetime
    updated_at: datetime


_Change: TypeAlias = Callable[[EndpointRow], EndpointRow]
_AfterStart: TypeAlias = (
    RolloutAdvanced | RolloutHeld | RolloutResumed | RolloutCompleted | RolloutAborted
)

ENDPOINTS = Table("endpoints", EndpointRow, key=("tenant", "name"))


def sole_version(policy: Policy) -> str | None:
    """The version that takes all traffic, if there is one."""
    weighted = {version for version, weight in policy.split.items() if weight > 0}
    for rule in policy.rules:
        weighted |= {version for version, weight in rule.split.items() if weight > 0}
    return weighted.pop() if len(weighted) == 1 else None


def _created(rows: WorkingSet, recorded: Recorded, event: EndpointCreated) -> None:
    rows[ENDPOINTS].put(
        EndpointRow(
            tenant=recorded.entity.tenant,
            position=recorded.position,
            name=recorded.entity.id,
            model=event.model,
            policy=event.policy,
            active=event.version,
            previous=None,
            rollout=None,
            swap=None,
            alerts=(),
            created_at=recorded.time,
            updated_at=recorded.time,
        )
    )


def _policy_set(rows: WorkingSet, recorded: Recorded, event: PolicySet) -> None:
    _update(rows, recorded, lambda row: _routed(row, event.policy))


def _swap_requested(rows: WorkingSet, recorded: Recorded, event: SwapRequested) -> None:
    swap = Swap(
        id=event.swap_id,
        from_=event.from_version,
        to=event.to_version,
        state="requested",
        requested_at=recorded.time,
        deadline=event.deadline,
        position=recorded.position,
    )
    _update(rows, recorded, lambda row: replace(row, swap=swap))


def _swap_completed(rows: WorkingSet, recorded: Recorded, event: SwapCompleted) -> None:
    def complete(row: EndpointRow) -> EndpointRow:
        swap = _ended(row.swap, recorded, event.swap_id)
        if swap is not None:
            row = replace(row, swap=replace(swap, state="completed"))
        return _routed(row, event.policy)

    _update(rows, recorded, complete)


def _swap_failed(rows: WorkingSet, recorded: Recorded, event: SwapFailed) -> None:
    def fail(row: EndpointRow) -> EndpointRow:
        swap = _ended(row.swap, recorded, event.swap_id)
        if swap is None:
            return row
        failed = replace(swap, state="failed", reason=event.reason, detail=event.detail)
        return replace(row, swap=failed)

    _update(rows, recorded, fail)


def _rolled_back(rows: WorkingSet, recorded: Recorded, event: RolledBack) -> None:
    def roll_back(row: EndpointRow) -> EndpointRow:
        return replace(row, policy=event.policy, active=event.to_version, previous=None)

    _update(rows, recorded, roll_back)


def _rollout_started(rows: WorkingSet, recorded: Recorded, event: RolloutStarted) -> None:
    rollout = RolloutSummary(
        id=event.rollout_id,
        baseline=event.baseline,
        candidate=event.candidate,
        state="running",
        step=0,
        weight=event.steps[0].weight,
        hold_until=event.hold_until,
        steps=event.steps,
    )
    _update(rows, recorded, lambda row: replace(row, policy=event.policy, rollout=rollout))


def _rollout_advanced(rows: WorkingSet, recorded: Recorded, event: RolloutAdvanced) -> None:
    def advance(rollout: RolloutSummary) -> RolloutSummary:
        return replace(
            rollout,
            state="running",
            step=event.step,
            weight=rollout.steps[event.step].weight,
            hold_until=event.hold_until,
        )

    _update(
        rows, recorded, lambda row: replace(_rolled_out(row, event, advance), policy=event.policy)
    )


def _rollout_held(rows: WorkingSet, recorded: Recorded, event: RolloutHeld) -> None:
    def hold(rollout: RolloutSummary) -> RolloutSummary:
        return replace(rollout, state="held", hold_until=None)

    _update(rows, recorded, lambda row: _rolled_out(row, event, hold))


def _rollout_resumed(rows: WorkingSet, recorded: Recorded, event: RolloutResumed) -> None:
    def resume(rollout: RolloutSummary) -> RolloutSummary:
        return replace(rollout, state="running", hold_until=event.hold_until)

    _update(rows, recorded, lambda row: _rolled_out(row, event, resume))


def _rollout_completed(rows: WorkingSet, recorded: Recorded, event: RolloutCompleted) -> None:
    def complete(row: EndpointRow) -> EndpointRow:
        return _routed(_rolled_out(row, event, _over), event.policy)

    _update(rows, recorded, complete)


def _rollout_aborted(rows: WorkingSet, recorded: Recorded, event: RolloutAborted) -> None:
    _update(rows, recorded, lambda row: _rolled_out(row, event, _over))


def _alert_raised(rows: WorkingSet, recorded: Recorded, event: AlertRaised) -> None:
    alert = Alert(
        id=event.alert_id,
        kind=event.kind,
        severity=event.severity,
        version=event.version,
        detail=event.detail,
        raised_at=recorded.time,
        position=recorded.position,
    )
    _update(rows, recorded, lambda row: replace(row, alerts=(*row.alerts, alert)))


def _alert_cleared(rows: WorkingSet, recorded: Recorded, event: AlertCleared) -> None:
    def clear(row: EndpointRow) -> EndpointRow:
        return replace(row, alerts=tuple(a for a in row.alerts if a.id != event.alert_id))

    _update(rows, recorded, clear)


def _rolled_out(
    row: EndpointRow,
    event: _AfterStart,
    change: Callable[[RolloutSummary], RolloutSummary | None],
) -> EndpointRow:
    """The row with its rollout changed, if it is the one that the event is about."""
    if row.rollout is None or row.rollout.id != event.rollout_id:
        return row
    return replace(row, rollout=change(row.rollout))


def _over(rollout: RolloutSummary) -> None:
    """What is shown of a rollout that has ended."""


def _routed(row: EndpointRow, policy: Policy) -> EndpointRow:
    """The row under a new policy."""
    sole = sole_version(policy)
    if sole is None or sole == row.active:
        return replace(row, policy=policy)
    return replace(row, policy=policy, active=sole, previous=row.active)


def _ended(swap: Swap | None, recorded: Recorded, swap_id: str) -> Swap | None:
    """The swap with its duration, if it is the one that ended."""
    if swap is None or swap.id != swap_id:
        return None
    duration_ms = (recorded.time - swap.requested_at) / timedelta(milliseconds=1)
    return replace(swap, duration_ms=duration_ms, position=recorded.position)


def _update(rows: WorkingSet, recorded: Recorded, change: _Change) -> None:
    row = rows[ENDPOINTS].get((recorded.entity.tenant, recorded.entity.id))
    if row is not None:
        changed = replace(change(row), position=recorded.position, updated_at=recorded.time)
        rows[ENDPOINTS].put(changed)


def _endpoint_row(recorded: Recorded) -> Iterable[Read]:
    yield ENDPOINTS, (recorded.entity.tenant, recorded.entity.id)


PROJECTION = Projection(
    name="endpoints",
    version=2,
    tables=(ENDPOINTS,),
    on=MappingProxyType(
        {
            EndpointCreated: On(_created),
            PolicySet: On(_policy_set, _endpoint_row),
            SwapRequested: On(_swap_requested, _endpoint_row),
            SwapCompleted: On(_swap_completed, _endpoint_row),
            SwapFailed: On(_swap_failed, _endpoint_row),
            RolledBack: On(_rolled_back, _endpoint_row),
            RolloutStarted: On(_rollout_started, _endpoint_row),
            RolloutAdvanced: On(_rollout_advanced, _endpoint_row),
            RolloutHeld: On(_rollout_held, _endpoint_row),
            RolloutResumed: On(_rollout_resumed, _endpoint_row),
            RolloutCompleted: On(_rollout_completed, _endpoint_row),
            RolloutAborted: On(_rollout_aborted, _endpoint_row),
            AlertRaised: On(_alert_raised, _endpoint_row),
            AlertCleared: On(_alert_cleared, _endpoint_row),
        }
    ),
    cached=Cached(ENDPOINTS, Endpoint),
)

"""What the tables say of an endpoint is what decisions are made on, whatever happened to it."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import settings
from hypothesis.stateful import invariant

from engine.decisions.endpoint import Endpoint
from events import Event, Position, Recorded
from projections.results import RolloutSummary
from projections.tables import endpoints, rollouts
from projections.working import WorkingSet
from tests.decisions.test_rollout_machine import RolloutMachine
from tests.projections.history import CHAT, START

WEIGHT_AT_THE_END = {"completed": 100.0, "aborted": 0.0}


class TablesMachine(RolloutMachine):
    """Every event that the random commands lead to is also folded into rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = WorkingSet()
        self.folded: Position = 0

    @invariant()
    def the_tables_agree_with_the_state(self) -> None:
        self._fold()
        assert told_by_rows(self.rows) == told_by_state(self.state)

    @invariant()
    def rollouts_that_are_over_are_told_as_they_ended(self) -> None:
        self._fold()
        for ended in self.state.ended_rollouts:
            row = self.rows[rollouts.ROLLOUTS].get((CHAT.tenant, CHAT.id, ended.rollout_id))
            assert row is not None
            assert (row.state, row.weight) == (ended.outcome, WEIGHT_AT_THE_END[ended.outcome])
            assert row.ended_at is not None

    def _fold(self) -> None:
        for event in self.events[self.folded :]:
            self.folded += 1
            for projection in (endpoints.PROJECTION, rollouts.PROJECTION):
                projection.fold(self.rows, recorded(event, self.folded))


def recorded(event: Event, position: Position) -> Recorded:
    return Recorded(
        position=position,
        entity=CHAT,
        event=event,
        id=UUID(int=position),
        time=START + timedelta(seconds=position),
        actor="key:k1",
        correlation_id="c1",
    )


def told_by_rows(rows: WorkingSet) -> tuple[Any, ...]:
    """What the tables say of the endpoint, and both of them of its rollout."""
    row = rows[endpoints.ENDPOINTS].get((CHAT.tenant, CHAT.id))
    assert row is not None
    pending = row.swap.id if row.swap is not None and row.swap.state == "requested" else None
    alerts = tuple(alert.id for alert in row.alerts)
    told = (row.policy, row.active, row.previous, pending, alerts)
    live = row.rollout
    if live is None:
        return (*told, None)
    kept = rows[rollouts.ROLLOUTS].get((CHAT.tenant, CHAT.id, live.id))
    assert kept is not None
    assert msgspec.convert(kept, RolloutSummary, from_attributes=True) == live
    rollout = (live.id, live.baseline, live.candidate, live.steps, live.step, live.weight)
    return (*told, (*rollout, kept.held_reason, live.hold_until))


def told_by_state(state: Endpoint) -> tuple[Any, ...]:
    pending = None if state.swap is None else state.swap.swap_id
    alerts = tuple(alert.alert_id for alert in state.alerts)
    told = (state.policy, state.active, state.previous, pending, alerts)
    live = state.rollout
    if live is None:
        return (*told, None)
    rollout = (live.rollout_id, live.baseline, live.candidate, live.steps, live.step, live.weight)
    return (*told, (*rollout, live.held, None if live.held else live.hold_until))


TablesMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestTables = pytest.mark.slow(TablesMachine.TestCase)

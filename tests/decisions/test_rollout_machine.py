"""Rollouts under random commands, while nodes fail: no version stays resident for sure.

Commands come as they do in life: from operators who look at the endpoint and from operators who
looked long ago, from reports that are late, twice, or about rollouts that are over.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from engine.decisions.decider import Refused, fold
from engine.decisions.endpoint import (
    DECIDER,
    AbortRollout,
    AdvanceRollout,
    ClearAlert,
    Command,
    CompleteSwap,
    Endpoint,
    HoldRollout,
    PauseRollout,
    PromoteRollout,
    RaiseAlert,
    RequestSwap,
    ResumeRollout,
    RollBack,
    SetPolicy,
    StartRollout,
)
from engine.decisions.policy import sole
from events import Event
from events.catalogue.endpoints import Policy, Shadow
from tests.decisions.endpoints import ALL, DEADLINE, V1, V2, V3, create
from tests.decisions.rollout_watch import RolloutWatch
from tests.decisions.rollouts import FAIL, NOW, PASS
from tests.decisions.strategies import plans

versions = st.sampled_from([V1, V2, V3])
fallbacks = st.lists(versions, max_size=3, unique=True).map(tuple)
steps = st.integers(0, 3)
seen = st.sampled_from(["now", "now", "now", "before"])
"""What the one who asks looked at: the endpoint as it is, or as it was some commands ago."""


class RolloutMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.states: list[Endpoint] = []
        self.watch = RolloutWatch()
        self.resident = ALL
        self.now: datetime = NOW
        self.rollouts = 0
        self.asked: list[Command] = []

    @property
    def state(self) -> Endpoint:
        return self.states[-1]

    @initialize(shadows=st.lists(versions, max_size=2, unique=True), fallback=fallbacks)
    def an_endpoint(self, shadows: list[str], fallback: tuple[str, ...]) -> None:
        self._commit(None, create())
        shadow = tuple(Shadow(version=version) for version in shadows)
        policy = Policy(split={V1: 100.0}, shadow=shadow, fallback=fallback)
        self.ask(_policy(policy, self.resident))

    # What happens around the endpoint

    @rule(resident=st.sampled_from([ALL, ALL, ALL - {V1}, ALL - {V2}, frozenset[str]()]))
    def nodes_come_and_go(self, resident: frozenset[str]) -> None:
        self.resident = resident

    @rule(seconds=st.floats(0, 200))
    def time_passes(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    # What is asked

    @rule(plan=plans, data=st.data())
    @precondition(lambda self: self.state.rollout is None)
    def start(self, plan: Any, data: st.DataObject) -> None:
        others = sorted(ALL - {self.state.active})
        self._start(data.draw(st.sampled_from(others), label="to"), plan)

    @rule(to=versions, plan=plans)
    def start_whatever_is_live(self, to: str, plan: Any) -> None:
        self._start(to, plan)

    def _start(self, to: str, plan: Any) -> None:
        self.rollouts += 1
        self.ask(
            StartRollout(
                rollout_id=f"r{self.rollouts}",
                to=to,
                steps=plan,
                now=self.now,
                registered=ALL,
                resident=self.resident,
            )
        )

    @rule(looked=seen, reason=st.sampled_from(["passed", "inconclusive"]))
    @precondition(lambda self: self.rollouts > 0)
    def a_step_is_over(self, looked: str, reason: Any) -> None:
        rollout_id, step = self._seen(looked)
        self.ask(
            AdvanceRollout(
                rollout_id=rollout_id,
                step=step,
                reason=reason,
                verdicts=(PASS,),
                now=self.now,
                resident=self.resident,
            )
        )

    @rule(looked=seen)
    @precondition(lambda self: self.state.rollout is not None)
    def a_step_is_not_known_to_be_good(self, looked: str) -> None:
        rollout_id, step = self._seen(looked)
        self.ask(HoldRollout(rollout_id=rollout_id, step=step))

    @rule(looked=seen, manner=st.sampled_from([PauseRollout, ResumeRollout]))
    @precondition(lambda self: self.rollouts > 0)
    def pause_or_resume(self, looked: str, manner: Any) -> None:
        self.ask(manner(rollout_id=self._seen(looked)[0], now=self.now))

    @rule(looked=seen, names_step=st.booleans(), to=st.sampled_from(["next", "next", "full"]))
    @precondition(lambda self: self.rollouts > 0)
    def promote(self, looked: str, names_step: bool, to: Any) -> None:
        rollout_id, step = self._seen(looked)
        self.ask(
            PromoteRollout(
                rollout_id=rollout_id,
                to=to,
                from_step=step if names_step else None,
                now=self.now,
                resident=self.resident,
            )
        )

    @rule(data=st.data(), version=versions, fallback=fallbacks)
    def something_else_is_asked(
        self, data: st.DataObject, version: str, fallback: tuple[str, ...]
    ) -> None:
        swap = RequestSwap(swap_id="s1", to=version, deadline=DEADLINE, registered=ALL)
        aborts: list[Command] = [
            AbortRollout(rollout_id=self._seen("now")[0], reason=reason, verdicts=(FAIL,))
            for reason in ("aborted", "failed", "inconclusive")
        ]
        policies = [
            Policy(split={version: 1.0}, fallback=fallback),
            Policy(split={V1: 1.0, version: 1.0}, fallback=fallback),
        ]
        others: list[Command] = [
            swap,
            RollBack(),
            *(_policy(each, self.resident) for each in policies),
        ]
        self.ask(data.draw(st.sampled_from([*aborts, *others]), label="command"))

    @rule()
    @precondition(lambda self: self.state.swap is not None)
    def the_swap_is_completed(self) -> None:
        self.ask(CompleteSwap(swap_id="s1", resident=self.resident))

    @rule(
        version=st.none() | versions, severity=st.sampled_from(["warning", "warning", "critical"])
    )
    def raise_an_alert(self, version: str | None, severity: Any) -> None:
        alert_id = f"a{len(self.asked)}"
        self.ask(RaiseAlert(alert_id=alert_id, kind="errors", severity=severity, version=version))

    @rule()
    @precondition(lambda self: self.state.alerts)
    def an_alert_clears(self) -> None:
        self.ask(ClearAlert(alert_id=self.state.alerts[0].alert_id))

    @rule(back=st.integers(1, 5))
    def a_command_comes_a_second_time(self, back: int) -> None:
        self.ask(self.asked[-back:][0])

    def ask(self, command: Command) -> None:
        self.asked.append(command)
        try:
            self._commit(self.state, command)
        except Refused as refusal:
            assert refusal.code in ("invalid", "conflict", "not_found")

    def _commit(self, state: Endpoint | None, command: Command) -> None:
        events = DECIDER.decide(state, command)
        self.watch.see(events, resident=_resident(command))
        self.events += events
        self.states.append(_evolved(state, events))
        assert _repeated(self.state, command) in ([], None), "repeating it changed something"

    def _seen(self, looked: str) -> tuple[str, int]:
        """The rollout and the step that who asks believes to be live."""
        for state in reversed(self.states if looked == "now" else self.states[:-4]):
            if state.rollout is not None:
                return state.rollout.rollout_id, state.rollout.step
        return "r1", 0

    # What always holds

    @invariant()
    def the_events_fold_to_the_state(self) -> None:
        assert fold(DECIDER, self.events) == self.state

    @invariant()
    def an_abort_wins_without_any_resident_version(self) -> None:
        rollout = self.state.rollout
        if rollout is None:
            return
        for reason in ("aborted", "failed", "inconclusive"):
            abort = AbortRollout(rollout_id=rollout.rollout_id, reason=reason)
            after = _evolved(self.state, DECIDER.decide(self.state, abort))
            assert after.rollout is None
            assert sole(after.policy) == after.active != rollout.candidate
            assert list(DECIDER.decide(after, abort)) == []

    @invariant()
    def a_rollback_wins_over_the_rollout(self) -> None:
        rollout = self.state.rollout
        if rollout is not None:
            after = _evolved(self.state, DECIDER.decide(self.state, RollBack()))
            assert after.rollout is None
            assert sole(after.policy) == after.active == self.state.rollback_target
            assert rollout.candidate not in after.policy.fallback, "it still answers"

    @invariant()
    def a_resident_candidate_can_be_promoted_whatever_becomes_of_the_baseline(self) -> None:
        rollout = self.state.rollout
        if rollout is not None:
            only = frozenset({rollout.candidate})
            promote = PromoteRollout(
                rollout_id=rollout.rollout_id, to="full", now=self.now, resident=only
            )
            after = _evolved(self.state, DECIDER.decide(self.state, promote))
            assert sole(after.policy) == after.active == rollout.candidate
            assert after.previous == rollout.baseline

    @invariant()
    def fallbacks_are_pinned(self) -> None:
        assert self.state.pinned_versions.issuperset(self.state.policy.fallback)

    @invariant()
    def baseline_and_candidate_are_pinned(self) -> None:
        rollout = self.state.rollout
        if rollout is not None:
            assert {rollout.baseline, rollout.candidate} <= self.state.pinned_versions
            assert self.state.active == rollout.baseline


def _policy(policy: Policy, resident: frozenset[str]) -> SetPolicy:
    return SetPolicy(policy=policy, registered=ALL, resident=resident)


def _resident(command: Command) -> frozenset[str]:
    """What was resident when the command was made."""
    resident: frozenset[str] = getattr(command, "resident", frozenset())
    return resident


def _repeated(state: Endpoint, command: Command) -> list[Event] | None:
    """What the command leads to when it comes again; None if it is refused then."""
    if isinstance(command, PromoteRollout) and command.to == "next" and command.from_step is None:
        return None  # names no step: it means the one in force
    try:
        return list(DECIDER.decide(state, command))
    except Refused:
        return None


def _evolved(state: Endpoint | None, events: Any) -> Endpoint:
    for event in events:
        state = DECIDER.evolve(state, event)
    assert state is not None
    return state


RolloutMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestRollout = pytest.mark.slow(RolloutMachine.TestCase)

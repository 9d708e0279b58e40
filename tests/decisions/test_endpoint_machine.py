"""The endpoint under random commands, while versions come and go and nodes evict what they may.

Nodes here keep one promise only: a pinned version is not evicted. Everything else is random: which
commands come in which order, which are told no, which swap reports come late.
"""

from __future__ import annotations

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
    FailSwap,
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
from engine.decisions.policy import sole, takers
from events import Event
from events.catalogue.endpoints import Policy, Step
from tests.decisions.endpoints import DEADLINE, create
from tests.decisions.last_good import LastGood
from tests.decisions.rollouts import NOW
from tests.decisions.strategies import VERSIONS, few_ids, nodes, plans, policies, versions


class EndpointMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.state: Endpoint
        self.usable: set[str] = set(VERSIONS[:3])
        self.nodes: list[set[str]] = [set(), set()]
        self.swaps = 0
        self.rollouts = 0

    @property
    def resident(self) -> frozenset[str]:
        return frozenset.union(*map(frozenset, self.nodes))

    @initialize(node=nodes)
    def an_endpoint(self, node: int) -> None:
        self.nodes[node] |= self.usable
        self.commit(None, create(registered=frozenset(self.usable), resident=self.resident))

    # What happens around the endpoint

    @rule(version=versions)
    def a_version_is_registered(self, version: str) -> None:
        self.usable.add(version)

    @rule(version=versions)
    def a_version_nobody_needs_is_retired(self, version: str) -> None:
        if version not in self.state.pinned_versions:
            self.usable.discard(version)

    @rule(node=nodes, version=versions)
    def a_node_loads(self, node: int, version: str) -> None:
        self.nodes[node].add(version)

    @rule(node=nodes, version=versions)
    def a_node_evicts(self, node: int, version: str) -> None:
        if version not in self.state.pinned_versions:
            self.nodes[node].discard(version)

    @rule(node=nodes)
    def a_node_is_short_of_memory(self, node: int) -> None:
        self.nodes[node] &= self.state.pinned_versions

    # What is asked of the endpoint

    @rule(data=st.data())
    def set_policy(self, data: st.DataObject) -> None:
        ready = sorted(self.resident & self.usable)
        self._set_policy(data.draw(policies(st.sampled_from(ready)), label="policy"))

    @rule(policy=policies(versions))
    def set_policy_that_may_name_anything(self, policy: Policy) -> None:
        self._set_policy(policy)

    @rule(data=st.data())
    def give_a_version_all_traffic(self, data: st.DataObject) -> None:
        ready = sorted(self.resident & self.usable)
        self._set_policy(Policy(split={data.draw(st.sampled_from(ready), label="version"): 1.0}))

    def _set_policy(self, policy: Policy) -> None:
        registered = frozenset(self.usable)
        self.ask(SetPolicy(policy=policy, registered=registered, resident=self.resident))

    @rule(data=st.data())
    def request_swap(self, data: st.DataObject) -> None:
        to = data.draw(st.sampled_from(sorted(self.usable)), label="to")
        self._request_swap(to)

    @rule(to=versions)
    def request_swap_to_anything(self, to: str) -> None:
        self._request_swap(to)

    def _request_swap(self, to: str) -> None:
        self.swaps += 1
        registered = frozenset(self.usable)
        command = RequestSwap(
            swap_id=str(self.swaps), to=to, deadline=DEADLINE, registered=registered
        )
        self.ask(command)

    @rule(node=nodes)
    @precondition(lambda self: self.state.swap is not None)
    def the_version_of_the_swap_is_loaded(self, node: int) -> None:
        assert self.state.swap is not None
        self.nodes[node].add(self.state.swap.to_version)

    @rule()
    @precondition(lambda self: self.state.swap is not None)
    def complete_the_swap(self) -> None:
        assert self.state.swap is not None
        self.ask(CompleteSwap(swap_id=self.state.swap.swap_id, resident=self.resident))

    @rule(back=st.integers(1, 3))
    @precondition(lambda self: self.swaps > 1)
    def complete_an_earlier_swap(self, back: int) -> None:
        before = self.state
        swap_id = str(self.swaps - back)
        if before.swap is None or before.swap.swap_id != swap_id:
            self.ask(CompleteSwap(swap_id=swap_id, resident=self.resident))
            assert self.state == before

    @rule(back=st.integers(0, 2), reason=st.sampled_from(["load_failed", "timeout"]))
    @precondition(lambda self: self.swaps > 0)
    def fail_a_swap(self, back: int, reason: Any) -> None:
        self.ask(FailSwap(swap_id=str(self.swaps - back), reason=reason))

    @rule(data=st.data(), steps=plans)
    def start_a_rollout(self, data: st.DataObject, steps: tuple[Step, ...]) -> None:
        ready = sorted(self.resident & self.usable - {self.state.active})
        if ready:
            self._start(data.draw(st.sampled_from(ready), label="to"), steps)

    @rule(to=versions, steps=plans)
    def start_a_rollout_to_anything(self, to: str, steps: tuple[Step, ...]) -> None:
        self._start(to, steps)

    def _start(self, to: str, steps: tuple[Step, ...]) -> None:
        self.rollouts += 1
        self.ask(
            StartRollout(
                rollout_id=f"r{self.rollouts}",
                to=to,
                steps=steps,
                now=NOW,
                registered=frozenset(self.usable),
                resident=self.resident,
            )
        )

    @rule(late=st.sampled_from([0, 0, 1]), reason=st.sampled_from(["passed", "inconclusive"]))
    @precondition(lambda self: self.state.rollout is not None)
    def a_step_is_over(self, late: int, reason: Any) -> None:
        assert self.state.rollout is not None
        self.ask(
            AdvanceRollout(
                rollout_id=self.state.rollout.rollout_id,
                step=self.state.rollout.step - late,
                reason=reason,
                now=NOW,
                resident=self.resident,
            )
        )

    @rule(back=st.sampled_from([0, 0, 1]), step=st.integers(0, 2), data=st.data())
    @precondition(lambda self: self.rollouts > 0)
    def do_something_to_a_rollout(self, back: int, step: int, data: st.DataObject) -> None:
        id_ = f"r{self.rollouts - back}"
        promotion = {"rollout_id": id_, "from_step": step, "now": NOW, "resident": self.resident}
        commands: list[Command] = [
            HoldRollout(rollout_id=id_, step=step),
            PauseRollout(rollout_id=id_, now=NOW),
            ResumeRollout(rollout_id=id_, now=NOW),
            AbortRollout(rollout_id=id_),
            PromoteRollout(to="next", **promotion),  # type: ignore[arg-type]
            PromoteRollout(to="full", **promotion),  # type: ignore[arg-type]
        ]
        self.ask(data.draw(st.sampled_from(commands), label="command"))

    @rule()
    def roll_back(self) -> None:
        self.ask(RollBack(reason="asked"))

    @rule(alert=few_ids, kind=few_ids)
    def warn(self, alert: str, kind: str) -> None:
        self.ask(RaiseAlert(alert_id=alert, kind=kind, severity="warning"))

    @rule(alert=few_ids, kind=few_ids)
    def alarm(self, alert: str, kind: str) -> None:
        is_repeat = any(open_.alert_id == alert for open_ in self.state.alerts)
        newest, on_trial = self.state.newest, self.state.on_trial
        self.ask(RaiseAlert(alert_id=alert, kind=kind, severity="critical"))
        kept_it = newest in takers(self.state.policy)
        if kept_it and newest == on_trial and not is_repeat:
            assert LastGood(self.events).version in (None, newest)

    @rule(alert=few_ids, kind=few_ids, version=versions)
    def alarm_about_any_version(self, alert: str, kind: str, version: str) -> None:
        before = self.state
        self.ask(RaiseAlert(alert_id=alert, kind=kind, severity="critical", version=version))
        if version != before.on_trial:
            assert (self.state.policy, self.state.rollout) == (before.policy, before.rollout)

    @rule(alert=few_ids)
    def clear_alert(self, alert: str) -> None:
        self.ask(ClearAlert(alert_id=alert))

    def ask(self, command: Command) -> None:
        try:
            self.commit(self.state, command)
        except Refused as refusal:
            assert refusal.code in ("invalid", "conflict", "not_found")

    def commit(self, state: Endpoint | None, command: Command) -> None:
        events = DECIDER.decide(state, command)
        self.state = _evolved(state, events)
        self.events += events
        assert list(DECIDER.decide(self.state, command)) == [], "repeating it changed something"

    # What always holds

    @invariant()
    def only_resident_versions_are_routed_to(self) -> None:
        assert self.state.routed_versions <= self.resident

    @invariant()
    def only_usable_versions_are_routed_to(self) -> None:
        assert self.state.routed_versions <= self.usable

    @invariant()
    def a_rollback_finds_its_target_resident_and_usable(self) -> None:
        target = self.state.rollback_target
        if target is not None:
            assert target in self.resident & self.usable
            assert target in self.state.pinned_versions

    @invariant()
    def a_swap_and_a_rollout_are_never_under_way_together(self) -> None:
        assert self.state.swap is None or self.state.rollout is None

    @invariant()
    def an_abort_does_to_the_traffic_what_a_rollback_does(self) -> None:
        rollout = self.state.rollout
        if rollout is not None:
            abort = AbortRollout(rollout_id=rollout.rollout_id)
            aborted = _evolved(self.state, DECIDER.decide(self.state, abort))
            assert aborted == _evolved(self.state, DECIDER.decide(self.state, RollBack()))

    @invariant()
    def the_events_fold_to_the_state(self) -> None:
        assert fold(DECIDER, self.events) == self.state

    @invariant()
    def the_target_is_the_last_good_version(self) -> None:
        assert self.state.rollback_target == LastGood(self.events).version

    @invariant()
    def a_rollback_is_legal_while_anything_challenges_the_last_good_version_and_wins(self) -> None:
        last_good = LastGood(self.events)
        if last_good.version is None:
            assert not last_good.challenged
            return
        after = _evolved(self.state, DECIDER.decide(self.state, RollBack()))
        assert sole(after.policy) == after.active == last_good.version
        assert (after.swap, after.rollout) == (None, None)
        losers = {*takers(self.state.policy), self.state.incoming} - {last_good.version}
        assert losers.isdisjoint(after.policy.fallback)
        assert set(self.state.policy.fallback) - losers == set(after.policy.fallback)
        assert after.pinned_versions <= self.state.pinned_versions
        assert list(DECIDER.decide(after, RollBack())) == []


def _evolved(state: Endpoint | None, events: Any) -> Endpoint:
    for event in events:
        state = DECIDER.evolve(state, event)
    assert state is not None
    return state


EndpointMachine.TestCase.settings = settings(
    max_examples=200, stateful_step_count=40, deadline=None
)
TestEndpoint = pytest.mark.slow(EndpointMachine.TestCase)

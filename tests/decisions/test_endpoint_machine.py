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
    ClearAlert,
    Command,
    CompleteSwap,
    Endpoint,
    FailSwap,
    RaiseAlert,
    RequestSwap,
    RollBack,
    SetPolicy,
)
from engine.decisions.policy import sole, takers
from events import Event
from events.catalogue.endpoints import (
    AlertCleared,
    AlertRaised,
    EndpointCreated,
    Policy,
    PolicySet,
    RolledBack,
    Rule,
    Shadow,
    SwapCompleted,
    SwapFailed,
    SwapRequested,
    When,
)
from tests.decisions.endpoints import DEADLINE, create

VERSIONS = [f"{major}.0.0" for major in range(1, 6)]
versions = st.sampled_from(VERSIONS)
nodes = st.integers(0, 1)
few_ids = st.integers(1, 9).map(str)
weights = st.sampled_from([1.0, 9.0, 1.0, 9.0, 0.0])


def policies(of: st.SearchStrategy[str]) -> st.SearchStrategy[Policy]:
    """Policies over some versions; one in a few has no meaning."""
    splits = st.dictionaries(of, weights, min_size=1, max_size=3)
    whens = st.just(When(attributes={"tier": "beta"}))
    rules = st.builds(Rule, name=st.just("beta"), when=whens, split=splits)
    shadows = st.builds(Shadow, version=of)
    return st.builds(
        Policy,
        split=splits,
        sticky=st.booleans(),
        rules=st.lists(rules, max_size=1).map(tuple),
        shadow=st.lists(shadows, max_size=1).map(tuple),
    )


class LastGood:
    """The last good version by its definition, from the events alone, apart from `evolve`."""

    def __init__(self, events: list[Event]) -> None:
        self.carried: list[str] = []
        self.taking: set[str] = set()
        self.pending: str | None = None
        self.alarming: dict[str, str | None] = {}
        for event in events:
            self._see(event)

    @property
    def active(self) -> str:
        return self.carried[-1]

    @property
    def challenged(self) -> bool:
        return self.pending is not None or self.taking != {self.active}

    @property
    def version(self) -> str | None:
        candidates = self.carried[::-1] if self.challenged else self.carried[-2::-1]
        known = candidates[: 2 if self.challenged else 1]
        good = [version for version in known if version not in self.alarming.values()]
        return next(iter([*good, *known]), None)

    def _see(self, event: Event) -> None:
        if isinstance(event, EndpointCreated | PolicySet | SwapCompleted | RolledBack):
            self.taking = set(takers(event.policy))
        if isinstance(event, RolledBack):
            self.carried = []
        if len(self.taking) == 1 and self.carried[-1:] != [*self.taking]:
            self.carried += self.taking
        match event:
            case SwapRequested():
                self.pending = event.to_version
            case SwapCompleted() | SwapFailed():
                self.pending = None
            case AlertRaised(severity="critical"):
                self.alarming[event.alert_id] = event.version
            case AlertCleared():
                self.alarming.pop(event.alert_id, None)


class EndpointMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []
        self.state: Endpoint
        self.usable: set[str] = set(VERSIONS[:3])
        self.nodes: list[set[str]] = [set(), set()]
        self.swaps = 0

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

    @rule()
    def roll_back(self) -> None:
        self.ask(RollBack(reason="asked"))

    @rule(alert=few_ids, kind=few_ids)
    def warn(self, alert: str, kind: str) -> None:
        self.ask(RaiseAlert(alert_id=alert, kind=kind, severity="warning"))

    @rule(alert=few_ids, kind=few_ids)
    def alarm(self, alert: str, kind: str) -> None:
        is_repeat = any(open_.alert_id == alert for open_ in self.state.alerts)
        newest = self.state.newest
        self.ask(RaiseAlert(alert_id=alert, kind=kind, severity="critical"))
        kept_it = newest in takers(self.state.policy)
        assert is_repeat or not kept_it or LastGood(self.events).version in (None, newest)

    @rule(alert=few_ids)
    def clear_alert(self, alert: str) -> None:
        self.ask(ClearAlert(alert_id=alert))

    def ask(self, command: Command) -> None:
        try:
            self.commit(self.state, command)
        except Refused as refusal:
            assert refusal.code in ("invalid", "conflict")

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
        assert after.swap is None
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

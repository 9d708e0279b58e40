"""Residency under any order of loads, leases, pins, growth and crashes."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.runtimes import LoadFailed
from tests.runtimes.test_residency import MB, Node, ref

BUDGET_MB = 100
NAMES = [f"v{i}" for i in range(6)]
names = st.sampled_from(NAMES)
sizes = st.integers(1, 70)


class ResidencyMachine(RuleBasedStateMachine):
    """The model: an ordered list of who is resident, oldest use first, with sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.node = self.run(self._node())
        self.model: dict[str, int] = {}
        self.outgrown = False
        """At the last settling, what may not go was larger than the budget."""
        self.leases: list[tuple[str, AbstractAsyncContextManager[Any]]] = []

    async def _node(self) -> Node:
        return Node(BUDGET_MB)

    def run(self, work: Any) -> Any:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        while self.leases:
            self.run(self.leases.pop()[1].__aexit__(None, None, None))
        self.run(self.node.residency.close())
        self.loop.close()

    def may_go(self, name: str) -> bool:
        leased = any(name == holder for holder, _ in self.leases)
        return not leased and ref(name) not in self.node.pinned

    def expect_room(self, needed_mb: int) -> bool:
        """Evict from the model in order of use; False if that is not enough."""
        if needed_mb > BUDGET_MB:
            return False
        for name in list(self.model):
            if sum(self.model.values()) + needed_mb <= BUDGET_MB:
                break
            if self.may_go(name):
                del self.model[name]
        return sum(self.model.values()) + needed_mb <= BUDGET_MB

    def use(self, name: str) -> None:
        self.model[name] = self.model.pop(name)

    @rule(name=names, declared_mb=st.none() | sizes, measured_mb=sizes)
    def load(self, name: str, declared_mb: int | None, measured_mb: int) -> None:
        self.node.sizes[name] = measured_mb
        try:
            self.run(self.node.load(name, declared_mb))
            loaded = True
        except LoadFailed as error:
            assert error.reason == "memory"
            loaded = False
        if name in self.model:
            assert loaded
            self.use(name)
            return
        fits = self.expect_room(declared_mb or 0) and self.expect_room(measured_mb)
        assert loaded == fits
        if fits:
            self.model[name] = measured_mb
            self.outgrown = False

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def begin_request(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.model)))
        lease = self.node.residency.lease(ref(name))
        self.run(lease.__aenter__())
        self.leases.append((name, lease))
        self.use(name)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def end_request(self, data: st.DataObject) -> None:
        _, lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        self.run(lease.__aexit__(None, None, None))

    @rule(pinned=st.sets(names, max_size=3))
    def pin(self, pinned: set[str]) -> None:
        self.node.pinned = {ref(name) for name in pinned}

    @rule(name=names)
    def unload(self, name: str) -> None:
        if any(name == holder for holder, _ in self.leases):
            return
        self.run(self.node.residency.unload(ref(name), reason="requested"))
        self.model.pop(name, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def crash(self, data: st.DataObject) -> None:
        name = data.draw(st.sampled_from(list(self.model)))
        if any(name == holder for holder, _ in self.leases):
            return
        self.node.runtimes[name].crash.set_result("crashed")
        self.run(self.node.runtimes[name].gone.wait())
        del self.model[name]

    @precondition(lambda self: self.model)
    @rule(data=st.data(), size_mb=sizes)
    def grow_and_settle(self, data: st.DataObject, size_mb: int) -> None:
        name = data.draw(st.sampled_from(list(self.model)))
        self.node.runtimes[name].size_bytes = size_mb * MB
        self.model[name] = size_mb
        self.run(self.node.residency.settle())
        self.outgrown = not self.expect_room(0)
        assert not self.outgrown or not any(self.may_go(name) for name in self.model)

    @invariant()
    def what_is_resident_is_as_the_model_says(self) -> None:
        resident = self.node.residency.resident
        assert [ref.version for ref in resident] == list(self.model)
        assert list(resident.values()) == [size_mb * MB for size_mb in self.model.values()]

    @invariant()
    def the_budget_is_kept_unless_what_may_not_go_outgrew_it(self) -> None:
        assert self.node.residency.used_bytes <= BUDGET_MB * MB or self.outgrown

    @invariant()
    def what_is_not_resident_is_closed(self) -> None:
        for name, runtime in self.node.runtimes.items():
            assert runtime.closed == (name not in self.model)


pytestmark = pytest.mark.slow

ResidencyMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None
)
TestResidency = ResidencyMachine.TestCase

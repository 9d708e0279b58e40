"""Whatever happens in whatever order, a breaker keeps to its limits and can always recover."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.runtimes.upstream.breaker import Breaker, BreakerLimits, Permit
from engine.runtimes.upstream.errors import CircuitOpen, Verdict
from tests.upstream.conftest import Clock

LIMITS = BreakerLimits(
    outcomes_max=6,
    failures_min=3,
    open_seconds=1.0,
    open_seconds_max=8.0,
    probes_max=2,
    answers_to_close=3,
)
VERDICTS = st.sampled_from(["answered", "failed", "unknown"])


class BreakerMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = Breaker(clock=self.clock, limits=LIMITS)
        self.permits: list[Permit] = []
        self.probes: set[Permit] = set()
        self.settled: list[Permit] = []

    @rule()
    def ask(self) -> None:
        before = self.breaker.state
        try:
            permit = self.breaker.admit()
        except CircuitOpen as refusal:
            assert before != "closed"
            assert refusal.retry_after_s is not None
            assert 0 < refusal.retry_after_s <= LIMITS.open_seconds_max
            return
        assert before != "open"
        self.permits.append(permit)
        if before == "half open":
            self.probes.add(permit)

    @precondition(lambda self: self.permits)
    @rule(data=st.data(), verdict=VERDICTS)
    def settle(self, data: st.DataObject, verdict: Verdict) -> None:
        permit = data.draw(st.sampled_from(self.permits))
        self.permits.remove(permit)
        self.settled.append(permit)
        self._changing(lambda: permit.settle(verdict))
        self.probes.discard(permit)

    @precondition(lambda self: self.settled)
    @rule(data=st.data(), again=st.booleans())
    def settle_late(self, data: st.DataObject, again: bool) -> None:
        permit = data.draw(st.sampled_from(self.settled))
        self._changing(lambda: permit.settle("failed") if again else permit.broke_off())

    @rule(seconds=st.sampled_from([0.1, 0.5, 1.0, 8.0]))
    def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds

    @invariant()
    def probes_are_few(self) -> None:
        assert len(self.probes) <= LIMITS.probes_max

    def teardown(self) -> None:
        """Left alone and then answered, it closes."""
        for permit in self.permits:
            permit.settle("unknown")
        self.clock.now += LIMITS.open_seconds_max
        for _ in range(LIMITS.answers_to_close):
            self.breaker.admit().settle("answered")
        assert self.breaker.state == "closed"

    def _changing(self, change: object) -> None:
        assert callable(change)
        before = self.breaker.state
        change()
        if self.breaker.state != before:  # another era: probes of the one before do not count
            self.probes.clear()


TestBreaker = BreakerMachine.TestCase
TestBreaker.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)

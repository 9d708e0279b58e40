"""The scheduler under any order of requests, steps, cancellations, failures and aborts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from engine.batching import Batch, NeverFits, Priority
from engine.batching.generation import Generation, State
from tests.batching.fakes import FakeExecutor, World

BATCH_MAX = 4
STEP_TOKENS_MAX = 7
PREFILL_TOKENS_MAX = 5
PASSES_MAX = 2
AGEING_SECONDS = 6.0
BLOCKS = 9
POISON = 900


class SchedulerMachine(RuleBasedStateMachine):
    """Nine blocks of four for up to four requests at once: never enough."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(
            executor=FakeExecutor(blocks=BLOCKS, context_tokens=200),
            batch_max=BATCH_MAX,
            step_tokens_max=STEP_TOKENS_MAX,
            prefill_tokens_max=PREFILL_TOKENS_MAX,
            long_prefills_max=2,
            passes_max=PASSES_MAX,
            skip_ahead_max=3,
            ageing_seconds=AGEING_SECONDS,
            watermark=0.1,
        )
        self.world.executor.poison = {POISON}
        self.wanted: dict[int, tuple[list[int], int, int]] = {}
        """Prompt, max_tokens and priority of each request that was taken in."""
        self.cancelled: set[int] = set()
        self.may_fail: set[int] = set()
        """Requests that were running while the executor was told to fail often."""
        self.passed: dict[int, int] = {}
        self.arrivals: dict[int, float] = {}

    @property
    def generations(self) -> dict[int, Generation]:
        return self.world.scheduler._generations

    @rule(
        begin=st.sampled_from([1, 1, 1, 100, 200, POISON]),
        length=st.integers(1, 24),
        max_tokens=st.integers(1, 20),
        priority=st.sampled_from(Priority),
        tenant=st.sampled_from(["acme", "globex"]),
        stop=st.sampled_from([(), (), ("9><1",), ("never",)]),
        patience_s=st.none() | st.integers(1, 40),
    )
    def submit(
        self,
        begin: int,
        length: int,
        max_tokens: int,
        priority: Priority,
        patience_s: int | None,
        **options: Any,
    ) -> None:
        prompt = list(range(begin, begin + length))
        now_s = self.world.clock.now_s
        try:
            number = self.world.submit(
                prompt,
                max_tokens,
                priority=priority,
                deadline_s=None if patience_s is None else now_s + patience_s,
                **options,
            )
        except NeverFits:
            assert length + max_tokens - 1 > BLOCKS * 4
            return
        self.wanted[number] = (prompt, max_tokens, priority)
        self.arrivals[number] = now_s

    @precondition(lambda self: self.generations)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.generations)))
        assert self.world.scheduler.cancel(number)
        self.cancelled.add(number)

    @rule(failures=st.integers(0, 2))
    def step(self, failures: int) -> None:
        """With an executor that fails up to twice, which nobody may notice."""
        self.world.executor.failures_left = failures
        self.stepped()

    @rule(failures=st.integers(3, 20))
    def step_badly(self, failures: int) -> None:
        """With an executor that fails more often than it is tried again."""
        self.world.executor.failures_left = failures
        self.may_fail |= set(self.generations)
        self.stepped()
        self.world.executor.failures_left = 0

    @precondition(lambda self: self.generations)
    @rule(data=st.data())
    def step_while_somebody_hangs_up(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.generations)))

        def hang_up(_batch: Batch) -> None:
            if self.world.scheduler.cancel(number):
                self.cancelled.add(number)

        self.world.executor.during = hang_up
        self.stepped()
        self.world.executor.during = lambda _batch: None

    @rule()
    def abort(self) -> None:
        alive = set(self.generations)
        self.world.take(self.world.scheduler.abort())
        assert {number for number in alive if self.world.ending(number) == "aborted"} == alive

    def stepped(self) -> None:
        scheduler, executor = self.world.scheduler, self.world.executor
        before = scheduler.statistics()
        waiting = scheduler._composer.waiting.first(10**6)
        ended = len(self.generations)
        tried: list[Batch] = []
        during = executor.during
        executor.during = lambda batch: (tried.append(batch), during(batch))
        self.world.step()
        executor.during = during
        after = scheduler.statistics()
        if ended and not tried:
            assert not self.generations, "somebody waits and nothing was computed"
        if tried:
            self.check_batch(
                tried[0], waiting, preempted=after.num_preemptions > before.num_preemptions
            )

    def check_batch(self, batch: Batch, waiting: list[Generation], *, preempted: bool) -> None:
        assert len(batch.requests) <= BATCH_MAX
        assert len(batch.tokens) <= STEP_TOKENS_MAX
        assert max(batch.counts) <= PREFILL_TOKENS_MAX
        assert len(set(batch.requests)) == len(batch.requests)
        admitted = [each for each in waiting if each.number in batch.requests]
        assert not (preempted and admitted)
        self.check_order(waiting, {each.number for each in admitted})

    def check_order(self, waiting: list[Generation], admitted: set[int]) -> None:
        """Who is passed by somebody of a worse rank is passed so often at most, or is long."""
        order = sorted(waiting, key=lambda each: each.rank)
        for index, each in enumerate(order):
            behind = sum(later.number in admitted for later in order[index + 1 :])
            if each.number not in admitted and len(each.tokens) <= PREFILL_TOKENS_MAX:
                self.passed[each.number] = self.passed.get(each.number, 0) + behind
                assert self.passed[each.number] <= PASSES_MAX

    @invariant()
    def every_block_is_free_or_used_and_referred_to_as_often_as_it_is_used(self) -> None:
        pool = self.world.scheduler._memory.pool
        used: dict[int, int] = {}
        for generation in self.generations.values():
            for block in generation.blocks:
                used[block.number] = used.get(block.number, 0) + 1
        free: list[int] = []
        border = pool._free._border
        block = border.following
        while block is not border:
            assert block.following.preceding is block
            free.append(block.number)
            block = block.following
        assert sorted([*free, *used]) == list(range(BLOCKS))
        assert (pool.free, pool.used) == (len(free), len(used))
        assert all(block.references == used.get(block.number, 0) for block in pool._blocks)
        assert all(pool._found[digest] is block for digest, block in pool._found.items())
        assert {b.number for b in pool._found.values()} == {
            b.number for b in pool._blocks if b.digest is not None
        }

    @invariant()
    def nobody_is_lost_or_in_two_places(self) -> None:
        composer = self.world.scheduler._composer
        places = [*composer.running, *composer.waiting.first(10**6)]
        assert sorted(each.number for each in places) == sorted(self.generations)
        assert all(each.state is State.RUNNING for each in composer.running)
        assert all(not each.blocks for each in composer.waiting.first(10**6))
        ended = {number for number in self.wanted if self.world.ending(number) is not None}
        assert ended | self.cancelled | set(self.generations) == set(self.wanted)
        assert not ended & set(self.generations)
        assert not self.cancelled & (ended | set(self.generations))

    @invariant()
    def every_answer_is_what_it_would_be_alone(self) -> None:
        for number, (prompt, max_tokens, _) in self.wanted.items():
            tokens = self.world.tokens(number)
            assert len(tokens) <= max_tokens
            expected = [(prompt[-1] + index) % 999 + 1 for index in range(len(tokens))]
            assert tokens == expected
            match self.world.ending(number):
                case "length":
                    assert len(tokens) == max_tokens
                case "failed":
                    assert number in self.may_fail or POISON in [*prompt, *tokens]
                case "stop":
                    assert "9><1" in "".join(f"<{token}>" for token in tokens)
                    assert "9><1" not in self.world.text(number)

    def teardown(self) -> None:
        self.world.executor.failures_left = 0
        limit = sum(len(prompt) + most for prompt, most, _ in self.wanted.values())
        self.world.run(steps_max=2 * limit + 1)
        assert self.world.used == 0


pytestmark = pytest.mark.slow

SchedulerMachine.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None
)
TestScheduler = SchedulerMachine.TestCase

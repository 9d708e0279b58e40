"""Who sees the candidate: by the policies of a rollout's events, and the routing of gateways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from hypothesis import given as over
from hypothesis import strategies as st

from engine.decisions.decider import fold
from engine.decisions.endpoint import DECIDER, AdvanceRollout, Command, CreateEndpoint
from engine.decisions.rollout_plan import WEIGHT_FULL
from engine.routing import compile_policy, decide_route
from events import Event
from events.catalogue.endpoints import Policy, Step
from tests.decisions.rollouts import NOW, abort, start

KEYS: Final = tuple(f"user-{index}" for index in range(100))

numbers = st.integers(0, 50)
names = st.builds("{}.{}.{}".format, numbers, numbers, numbers)
pairs = st.lists(names, min_size=2, max_size=2, unique=True)
plans = st.sets(
    st.just(0.0) | st.just(WEIGHT_FULL) | st.floats(0.001, 99.999), min_size=1, max_size=8
).filter(lambda weights: max(weights) > 0)


def seeing(policy: Policy, version: str) -> set[str]:
    table = compile_policy(policy, salt="acme/chat", position=1)
    return {key for key in KEYS if decide_route(table, key, 0, {}).version == version}


def policies_of(commands: Sequence[Command]) -> list[Policy]:
    """The policy after each command that led to something."""
    history: list[Event] = []
    policies = []
    for command in commands:
        events = DECIDER.decide(fold(DECIDER, history), command)
        assert events, "a command of this story had no effect"
        history += events
        state = fold(DECIDER, history)
        assert state is not None
        policies.append(state.policy)
    return policies


def story(old: str, new: str, weights: Sequence[float]) -> list[Command]:
    """The endpoint is created, the rollout started."""
    both = frozenset({old, new})
    steps = tuple(Step(weight=weight, hold_s=0) for weight in weights)
    return [
        CreateEndpoint(model="fraud", version=old, registered=both, resident=both),
        start(new, steps=steps, registered=both, resident=both),
    ]


def passed(step: int, new: str) -> AdvanceRollout:
    return AdvanceRollout(
        rollout_id="r1", step=step, reason="passed", now=NOW, resident=frozenset({new})
    )


@over(pairs, plans)
def test_a_user_who_saw_the_candidate_keeps_seeing_it_until_all_do(
    pair: list[str], plan: set[float]
) -> None:
    old, new = pair
    advances = [passed(step, new) for step in range(len(plan))]
    saw: set[str] = set()
    for policy in policies_of([*story(old, new, sorted(plan)), *advances]):
        now = seeing(policy, new)
        assert saw <= now
        assert now | seeing(policy, old) == set(KEYS)
        saw = now
    assert saw == set(KEYS)


@over(pairs, plans, st.data())
def test_nobody_sees_the_candidate_after_an_abort(
    pair: list[str], plan: set[float], data: st.DataObject
) -> None:
    old, new = pair
    step = data.draw(st.integers(0, len(plan) - 1), label="step")
    advances = [passed(index, new) for index in range(step)]
    last = policies_of([*story(old, new, sorted(plan)), *advances, abort()])[-1]
    assert seeing(last, old) == set(KEYS)

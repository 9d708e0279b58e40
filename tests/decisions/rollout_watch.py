"""What holds of every rollout, seen from its events alone, one append after the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from engine.decisions.policy import problems, sole
from engine.routing import compile_policy, decide_route
from events import Event
from events.catalogue.endpoints import (
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
)

KEYS: Final = tuple(f"user-{index}" for index in range(64))
MOVES: Final = (
    EndpointCreated,
    PolicySet,
    SwapCompleted,
    RolledBack,
    RolloutStarted,
    RolloutAdvanced,
    RolloutCompleted,
)


class RolloutWatch:
    """Sees every append in order; fails at the first event that may not be."""

    def __init__(self) -> None:
        self.policy: Policy
        self.live: RolloutStarted | None = None
        self.step = 0
        self.paused = False
        self.saw_candidate: frozenset[str] = frozenset()

    def see(self, append: Sequence[Event], *, resident: frozenset[str]) -> None:
        """`resident`: when it was decided."""
        for event, following in zip(append, [*append[1:], None], strict=False):
            if isinstance(event, MOVES):
                self._see_move(event.policy, event, resident)
            self._see_rollout(event, following)

    def _see_move(self, policy: Policy, event: Event, resident: frozenset[str]) -> None:
        assert problems(policy) == {}
        if not isinstance(event, RolledBack | EndpointCreated):
            before, after = _shares(self.policy), _shares(policy)
            grown = {version for version in after if after[version] > before.get(version, 0.0)}
            assert grown <= resident, "a version that is not resident gets more"
        if not isinstance(event, PolicySet | EndpointCreated):
            gone = event.from_versions if isinstance(event, RolledBack) else ()
            kept = tuple(version for version in self.policy.fallback if version not in gone)
            assert policy.fallback == kept, "a fallback is lost, or a bad version stays one"
        self.policy = policy

    def _see_rollout(self, event: Event, following: Event | None) -> None:
        match event:
            case RolloutStarted():
                assert self.live is None, "two rollouts at once"
                self.live, self.step, self.paused = event, 0, False
                self.saw_candidate = frozenset()
                self._see_step(event.policy, event.candidate)
            case RolloutAdvanced():
                assert event.step == self.step + 1, "a step is lost or repeated"
                assert event.reason == "promoted" or not self.paused
                self.step, self.paused = event.step, False
                self._see_step(event.policy, self._of(event.rollout_id).candidate)
            case RolloutHeld() | RolloutResumed():
                self._of(event.rollout_id)
                assert event.step == self.step
                self.paused = isinstance(event, RolloutHeld) and event.reason == "paused"
            case RolloutCompleted():
                steps = self._of(event.rollout_id).steps
                at_the_end = self.step == len(steps) - 1 and not self.paused
                assert event.reason == "promoted" or at_the_end
                assert sole(event.policy) == event.candidate
                self._see_users(event.policy, event.candidate)
                self.live = None
            case RolloutAborted():
                self._of(event.rollout_id)
                assert event.step == self.step
                assert isinstance(following, RolledBack | PolicySet), "traffic stays split"
                self.live = None
            case _:
                assert self.live is None or not isinstance(event, MOVES), "moved by another"

    def _of(self, rollout_id: str) -> RolloutStarted:
        assert self.live is not None, "an event of a rollout that is over"
        assert self.live.rollout_id == rollout_id
        return self.live

    def _see_step(self, policy: Policy, candidate: str) -> None:
        assert self.live is not None
        weights = [step.weight for step in self.live.steps[: self.step + 1]]
        assert weights == sorted(set(weights)), "a weight that does not grow"
        assert policy.split == {self.live.baseline: 100 - weights[-1], candidate: weights[-1]}
        self._see_users(policy, candidate)

    def _see_users(self, policy: Policy, candidate: str) -> None:
        table = compile_policy(policy, salt="acme/chat", position=1)
        routed = {key: decide_route(table, key, 0, {}).version for key in KEYS}
        seeing = frozenset(key for key, version in routed.items() if version == candidate)
        assert self.saw_candidate <= seeing, "a user who saw the candidate lost it"
        self.saw_candidate = seeing


def _shares(policy: Policy) -> dict[str, float]:
    """Of all traffic; where rules differ from each other, of what no rule matches."""
    if (version := sole(policy)) is not None:
        return {version: 1.0}
    total = sum(policy.split.values())
    return {version: weight / total for version, weight in policy.split.items() if weight}

"""A swap or a rollout that is under way: what it keeps others from, and how it ends early.

Several commands lead to these events. Each function yields nothing where there is nothing to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from engine.decisions import policy as policies
from engine.decisions.decider import Conflict
from engine.decisions.endpoint_state import Endpoint
from events import Event
from events.catalogue.endpoints import RolledBack, RolloutAborted, SwapFailed, Verdict

TEXT_CHARS_MAX: Final = 2_000
"""Reasons and details are cut here: a long story must not stop a rollback."""

SwapFailure: TypeAlias = Literal["load_failed", "timeout", "rolled_back", "superseded"]
Abortion: TypeAlias = Literal[
    "aborted", "failed", "inconclusive", "rolled_back", "alert", "superseded"
]


class SwapUnderWay(Conflict):
    """A swap is pending: wait for it, or roll it back."""

    def __init__(self, swap_id: str, to: str) -> None:
        super().__init__(f"swap {swap_id} to {to} is under way")
        self.swap_id = swap_id
        self.to = to


class RolloutUnderWay(Conflict):
    """A rollout is live: promote it, or abort it."""

    def __init__(self, rollout_id: str, to: str) -> None:
        super().__init__(f"rollout {rollout_id} to {to} is under way")
        self.rollout_id = rollout_id
        self.to = to


def check_no_rollout(state: Endpoint) -> None:
    """Raises RolloutUnderWay."""
    if state.rollout is not None:
        raise RolloutUnderWay(state.rollout.rollout_id, state.rollout.candidate)


def check_no_swap(state: Endpoint) -> None:
    """Raises SwapUnderWay."""
    if state.swap is not None:
        raise SwapUnderWay(state.swap.swap_id, state.swap.to_version)


def swap_failed(state: Endpoint, reason: SwapFailure, detail: str) -> Sequence[Event]:
    """The end of the pending swap. Traffic stays where it is."""
    if state.swap is None:
        return ()
    return (
        SwapFailed(
            swap_id=state.swap.swap_id,
            from_version=state.swap.from_version,
            to_version=state.swap.to_version,
            reason=reason,
            detail=detail[:TEXT_CHARS_MAX],
        ),
    )


def rollout_aborted(
    state: Endpoint, reason: Abortion, detail: str, verdicts: tuple[Verdict, ...] = ()
) -> Sequence[Event]:
    """The end of the live rollout. What moves its traffic must follow in the same append."""
    rollout = state.rollout
    if rollout is None:
        return ()
    return (
        RolloutAborted(
            rollout_id=rollout.rollout_id,
            baseline=rollout.baseline,
            candidate=rollout.candidate,
            step=rollout.step,
            reason=reason,
            detail=detail[:TEXT_CHARS_MAX],
            verdicts=verdicts,
        ),
    )


def rolled_back(state: Endpoint, reason: str) -> Sequence[Event]:
    """All traffic to the last good version; the end of what is under way in `state` precedes it.

    What it is taken from is no fallback any more either: it would answer wherever the last good
    version fails.
    """
    target = state.rollback_target
    if target is None:
        return ()
    challengers = filter(None, (*state.arrivals, state.incoming))
    losers = tuple(dict.fromkeys(version for version in challengers if version != target))
    left = policies.without_fallbacks(state.policy, frozenset(losers))
    return (
        RolledBack(
            from_versions=losers,
            to_version=target,
            reason=reason[:TEXT_CHARS_MAX],
            policy=policies.all_to(target, like=left),
        ),
    )

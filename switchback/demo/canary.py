"""One canary of the tour: what its events say, beside what clients saw at the same time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, TypeAlias

import msgspec

from events.catalogue.endpoints import (
    RolledBack,
    RolloutAborted,
    RolloutAdvanced,
    RolloutCompleted,
    RolloutStarted,
)
from switchback.demo.traffic import Request
from switchback.demo.watch import Watch

JSON: TypeAlias = Mapping[str, Any]

REACTION: Final = "reaction:"
"""How actors begin that are no people."""


class StepSeen(msgspec.Struct, frozen=True, kw_only=True):
    """One step. Times are wall-clock seconds since the epoch."""

    number: int
    """From 1."""
    weight: float
    """The candidate's share that was asked for, in per cent."""
    began: float
    """When clients first were routed by it."""
    ended: float | None
    """None while it is in force."""
    verdicts: tuple[JSON, ...]
    """On which it ended."""
    outcome: str
    """Empty while it is in force."""


class Canary(msgspec.Struct, frozen=True, kw_only=True):
    """A rollout that has ended."""

    baseline: str
    candidate: str
    events: tuple[JSON, ...]
    """Of the endpoint, in order, from the rollout's start to what its end led to."""
    watch: Watch

    @property
    def began(self) -> float:
        return in_force_since(self.events[0], self.watch)

    @property
    def ended(self) -> float:
        return in_force_since(self.events[-1], self.watch)

    @property
    def steps(self) -> list[StepSeen]:
        return steps_in(self.events, self.watch)

    @property
    def completed(self) -> bool:
        """Every step passed, and nobody but the reaction moved it."""
        steps = self.steps
        moves = self.events[1:]
        return (
            moves[-1]["type"] == RolloutCompleted.type
            and all(step.outcome == "passed" for step in steps)
            and len(steps) == len(self.events[0]["data"]["steps"])
            and all(event["actor"].startswith(REACTION) for event in moves)
        )

    @property
    def aborted(self) -> JSON | None:
        """The event that ended it early, if one did."""
        return _first(self.events, RolloutAborted.type)

    @property
    def rolled_back(self) -> JSON | None:
        """The event that returned the traffic, if one did."""
        return _first(self.events, RolledBack.type)

    @property
    def rolled_back_by_itself(self) -> bool:
        event = self.rolled_back
        return event is not None and bool(event["actor"].startswith(REACTION))

    @property
    def failed(self) -> list[Request]:
        """What clients sent since it began and got no answer to."""
        return [r for r in self.watch.failed if r.sent >= time_of(self.events[0])]

    @property
    def failed_elsewhere(self) -> list[Request]:
        """Of those, what was not sent to the candidate."""
        return [request for request in self.failed if request.version != self.candidate]

    @property
    def taken_after_the_end(self) -> list[Request]:
        """Requests that the candidate took although another one, sent before, was already answered
        by the policy of the rollback."""
        event = self.rolled_back
        if event is None:
            return []
        after = [r.answered for r in self.watch.requests if r.position >= event["position"]]
        known = min(after, default=float("inf"))
        return [r for r in self.watch.requests if r.version == self.candidate and r.sent > known]


def steps_in(events: Sequence[JSON], watch: Watch) -> list[StepSeen]:
    """The steps of the rollout that the first event starts, as far as the events go."""
    weights = [step["weight"] for step in events[0]["data"]["steps"]]
    ends = [event for event in events if event["type"] in _ENDS]
    begins = [events[0], *(event for event in ends if event["type"] == RolloutAdvanced.type)]
    steps = []
    for index, begin in enumerate(begins):
        end = ends[index] if index < len(ends) else None
        steps.append(
            StepSeen(
                number=index + 1,
                weight=weights[index],
                began=in_force_since(begin, watch),
                ended=in_force_since(end, watch) if end is not None else None,
                verdicts=tuple(end["data"].get("verdicts", ())) if end is not None else (),
                outcome=end["data"]["reason"] if end is not None else "",
            )
        )
    return steps


_ENDS: Final = frozenset({RolloutAdvanced.type, RolloutCompleted.type, RolloutAborted.type})
STARTS_A_ROLLOUT: Final = RolloutStarted.type
ENDS_A_ROLLOUT: Final = frozenset({RolloutCompleted.type, RolledBack.type})


def time_of(event: JSON) -> float:
    """When it happened, in seconds since the epoch."""
    return datetime.fromisoformat(event["time"]).timestamp()


def in_force_since(event: JSON, watch: Watch) -> float:
    """When clients first were routed by what the event says; of one without a policy, its time."""
    return watch.routed_since(event["position"]) or time_of(event)


def _first(events: Sequence[JSON], type_: str) -> JSON | None:
    return next((event for event in events if event["type"] == type_), None)

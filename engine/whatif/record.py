"""A recorded log, read for what its rollouts did and what traffic they did it on.

Every window belongs to the policy it was routed by, and every policy to a phase of a rollout: so a
window's place in the rollout is known exactly, whatever the clocks of its gateway say.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final, TypeAlias

import msgspec

from engine.whatif.course import ActKind
from events.catalogue.endpoints import (
    Analysis,
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
    Step,
    SwapCompleted,
    Verdict,
)
from events.catalogue.traffic import WindowObserved
from events.event import EntityId, Position, Recorded

OWN_REASONS: Final = frozenset({"passed", "failed", "inconclusive"})
"""Of moves that rollouts make by themselves; the others are those of people and alerts."""
_PolicyChange: TypeAlias = (
    EndpointCreated
    | PolicySet
    | SwapCompleted
    | RolledBack
    | RolloutStarted
    | RolloutAdvanced
    | RolloutCompleted
)
_RolloutMove: TypeAlias = (
    RolloutAdvanced | RolloutHeld | RolloutResumed | RolloutCompleted | RolloutAborted
)
_FIRST_INSTANT: Final = timedelta(microseconds=1)


class Move(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a rollout at one time."""

    time: datetime
    kind: ActKind
    step: int
    """In force after it, or last."""
    reason: str
    hold_until: datetime | None = None
    hold_left_s: float = 0.0
    verdicts: tuple[Verdict, ...] = ()

    @property
    def is_own(self) -> bool:
        """Whether the rollout made it by itself."""
        return self.reason in OWN_REASONS


class Phase(msgspec.Struct, frozen=True, kw_only=True):
    """The time in which one policy of a rollout was in force."""

    policy: Position
    step: int | None
    """None: the rollout is completed."""
    share: float
    """The candidate's, 0 to 1."""
    begin: datetime
    end: datetime

    def routed_at(self, window: WindowObserved) -> datetime:
        """An instant in which requests of the window were routed."""
        return max(self.begin, min(window.start, self.end - _FIRST_INSTANT))


class RecordedRollout(msgspec.Struct, frozen=True, kw_only=True):
    """One rollout, and the traffic while its candidate took any."""

    entity: EntityId
    rollout_id: str
    baseline: str
    candidate: str
    steps: tuple[Step, ...]
    analysis: Analysis
    policy: Policy
    started: datetime
    hold_until: datetime
    """Of the first step."""
    moves: tuple[Move, ...]
    phases: tuple[Phase, ...]
    windows: tuple[WindowObserved, ...]
    """Of all phases, in the order of the log."""
    known_until: datetime
    """What the candidate would have done later was not recorded."""
    returned: bool
    """Traffic was taken from the candidate after the rollout was completed, by RolledBack."""

    @property
    def end(self) -> Move | None:
        """How it ended, if it did."""
        last = self.moves[-1] if self.moves else None
        return last if last is not None and last.kind in ("completed", "aborted") else None


class Recording(msgspec.Struct, frozen=True, kw_only=True):
    """What a log says about rollouts and traffic."""

    rollouts: tuple[RecordedRollout, ...]
    """In the order in which they began."""
    windows: dict[EntityId, list[WindowObserved]]
    """Endpoint -> its windows, in the order of the log."""
    policies: dict[Position, Policy]
    """Position of the event that set it -> policy."""


def read_recording(log: Iterable[Recorded]) -> Recording:
    """Events and windows, in any order between the two. Raises what reading the log raises."""
    endpoints: dict[EntityId, list[Recorded]] = {}
    windows: dict[EntityId, list[WindowObserved]] = {}
    seen: set[object] = set()
    for recorded in log:
        if isinstance(recorded.event, WindowObserved):
            if recorded.id not in seen:
                seen.add(recorded.id)
                windows.setdefault(_endpoint_of(recorded.entity), []).append(recorded.event)
        elif recorded.entity.aggregate == "endpoint":
            endpoints.setdefault(recorded.entity, []).append(recorded)
    found = [
        rollout
        for entity, events in endpoints.items()
        for rollout in _Endpoint(entity, events, windows.get(entity, [])).rollouts()
    ]
    return Recording(
        rollouts=tuple(sorted(found, key=lambda rollout: rollout.phases[0].policy)),
        windows=windows,
        policies={
            recorded.position: recorded.event.policy
            for events in endpoints.values()
            for recorded in events
            if isinstance(recorded.event, _PolicyChange)
        },
    )


def window_end(window: WindowObserved) -> datetime:
    """The first instant after the window."""
    return window.start + timedelta(seconds=window.seconds)


def _endpoint_of(traffic: EntityId) -> EntityId:
    return EntityId(traffic.tenant, "endpoint", traffic.id)


class _Endpoint:
    """One endpoint's events, cut into rollouts."""

    def __init__(
        self, entity: EntityId, events: list[Recorded], windows: list[WindowObserved]
    ) -> None:
        self._entity = entity
        self._events = events
        self._windows = windows
        ends = [window_end(window) for window in windows]
        self._log_end = max([*ends, *(recorded.time for recorded in events)])

    def rollouts(self) -> Iterable[RecordedRollout]:
        for index, recorded in enumerate(self._events):
            if isinstance(recorded.event, RolloutStarted):
                yield self._rollout(recorded, recorded.event, self._events[index + 1 :])

    def _rollout(
        self, start: Recorded, event: RolloutStarted, later: list[Recorded]
    ) -> RecordedRollout:
        moves: list[Move] = []
        changes: list[tuple[Recorded, int | None]] = [(start, 0)]
        over: Recorded | None = None
        step = 0
        for recorded in later:
            if not _is_move_of(recorded, event.rollout_id):
                if isinstance(recorded.event, _PolicyChange):
                    over = recorded
                    break
                continue
            move = _move(recorded, step)
            moves.append(move)
            step = move.step
            if isinstance(recorded.event, RolloutAborted):
                over = recorded
                break
            if isinstance(recorded.event, RolloutAdvanced | RolloutCompleted):
                changes.append((recorded, None if move.kind == "completed" else step))
        known_until = over.time if over is not None else self._log_end
        phases = tuple(_phases(changes, event.steps, known_until))
        policies = {phase.policy for phase in phases}
        return RecordedRollout(
            entity=self._entity,
            rollout_id=event.rollout_id,
            baseline=event.baseline,
            candidate=event.candidate,
            steps=event.steps,
            analysis=event.analysis,
            policy=event.policy,
            started=start.time,
            hold_until=event.hold_until,
            moves=tuple(moves),
            phases=phases,
            windows=tuple(window for window in self._windows if window.policy in policies),
            known_until=known_until,
            returned=over is not None and _is_return(over, event.candidate),
        )


def _is_move_of(recorded: Recorded, rollout_id: str) -> bool:
    event = recorded.event
    return isinstance(event, _RolloutMove) and event.rollout_id == rollout_id


def _is_return(recorded: Recorded, candidate: str) -> bool:
    event = recorded.event
    return isinstance(event, RolledBack) and candidate in event.from_versions


def _move(recorded: Recorded, step: int) -> Move:
    event, time = recorded.event, recorded.time
    match event:
        case RolloutAdvanced():
            return Move(
                time=time,
                kind="advanced",
                step=event.step,
                reason=event.reason,
                hold_until=event.hold_until,
                verdicts=event.verdicts,
            )
        case RolloutHeld():
            return Move(
                time=time,
                kind="held",
                step=event.step,
                reason=event.reason,
                hold_left_s=event.hold_left_s,
                verdicts=event.verdicts,
            )
        case RolloutResumed():
            return Move(
                time=time,
                kind="resumed",
                step=event.step,
                reason="resumed",
                hold_until=event.hold_until,
            )
        case RolloutAborted():
            return Move(
                time=time,
                kind="aborted",
                step=event.step,
                reason=event.reason,
                verdicts=event.verdicts,
            )
        case RolloutCompleted():
            return Move(
                time=time,
                kind="completed",
                step=step,
                reason=event.reason,
                verdicts=event.verdicts,
            )
    raise AssertionError(f"{event.type} moves no rollout")


def _phases(
    changes: list[tuple[Recorded, int | None]], steps: tuple[Step, ...], end: datetime
) -> Iterable[Phase]:
    ends = [recorded.time for recorded, _ in changes[1:]] + [end]
    for (recorded, step), until in zip(changes, ends, strict=True):
        yield Phase(
            policy=recorded.position,
            step=step,
            share=1.0 if step is None else steps[step].weight / 100.0,
            begin=recorded.time,
            end=until,
        )

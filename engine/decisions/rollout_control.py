"""What is done to a rollout that is live, by operators or because of a verdict. Part of
`engine.decisions.endpoint`.

An abort is legal as long as the rollout is live, in whatever step it is held, and needs no version
to be resident. A rollout that is over is named in vain, unless it ended as the command wants it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

import msgspec

from engine.decisions.decider import Conflict, NotFound
from engine.decisions.endpoint_state import EndedRollout, Endpoint, Rollout
from engine.decisions.facts import check_resident
from engine.decisions.rollout import advanced, completed
from engine.decisions.under_way import rolled_back, rollout_aborted
from engine.decisions.verdicts import writable
from events import Event
from events.catalogue.endpoints import RolloutHeld, RolloutResumed, Verdict

# ---------------------------------------------------------------------------------------- Commands


class PauseRollout(msgspec.Struct, frozen=True, kw_only=True):
    """Stay in the step, whatever the evidence. Raises UnknownEndpoint, UnknownRollout,
    RolloutEnded."""

    rollout_id: str
    now: datetime


class ResumeRollout(msgspec.Struct, frozen=True, kw_only=True):
    """Go on with what was left of the step's hold. Raises UnknownEndpoint, UnknownRollout,
    RolloutEnded."""

    rollout_id: str
    now: datetime


class PromoteRollout(msgspec.Struct, frozen=True, kw_only=True):
    """Do not wait for the evidence: the next step, or all traffic to the candidate.

    Raises UnknownEndpoint, UnknownRollout, RolloutEnded, StepNotReached, VersionNotResident.
    """

    rollout_id: str
    to: Literal["next", "full"]
    from_step: int | None = None
    """Of `next`: the step it is to end; one that is over already changes nothing. None: the one in
    force, so that pressing twice takes two steps. `full` completes from any step."""
    now: datetime
    resident: frozenset[str]


class AbortRollout(msgspec.Struct, frozen=True, kw_only=True):
    """All traffic to the last good version, the baseline unless that is known to be bad. Aborting
    it again changes nothing.

    Raises UnknownEndpoint, UnknownRollout, RolloutEnded (it was completed: roll back).
    """

    rollout_id: str
    reason: Literal["aborted", "failed", "inconclusive"] = "aborted"
    detail: str = ""
    verdicts: tuple[Verdict, ...] = ()


Command: TypeAlias = PauseRollout | ResumeRollout | PromoteRollout | AbortRollout


class UnknownRollout(NotFound):
    """No rollout of the endpoint has this id, or it ended long ago."""

    def __init__(self, rollout_id: str) -> None:
        super().__init__(f"the endpoint has no rollout {rollout_id[:64]}")
        self.rollout_id = rollout_id


class RolloutEnded(Conflict):
    """The rollout is over, and was completed or aborted."""

    def __init__(self, ended: EndedRollout) -> None:
        super().__init__(f"rollout {ended.rollout_id} is over: it was {ended.outcome}")
        self.rollout_id = ended.rollout_id
        self.outcome = ended.outcome


class StepNotReached(Conflict):
    """The step named is still to come."""

    def __init__(self, named: int, step: int) -> None:
        super().__init__(f"step {named} is not in force: the rollout is at step {step}")
        self.named = named
        self.step = step


# ------------------------------------------------------------------------------------------ decide


def decide(state: Endpoint, command: Command) -> Sequence[Event]:
    """The events of the command, or a refusal."""
    match command:
        case PauseRollout():
            return _pause(_live(state, command.rollout_id), command)
        case ResumeRollout():
            return _resume(_live(state, command.rollout_id), command)
        case PromoteRollout():
            return _promote(state, command)
        case AbortRollout():
            return _abort(state, command)


def _pause(rollout: Rollout, command: PauseRollout) -> Sequence[Event]:
    if rollout.held == "paused":
        return ()
    left_s = (rollout.hold_until - command.now).total_seconds()
    return (
        RolloutHeld(
            rollout_id=rollout.rollout_id,
            step=rollout.step,
            reason="paused",
            hold_left_s=max(0.0, left_s),
        ),
    )


def _resume(rollout: Rollout, command: ResumeRollout) -> Sequence[Event]:
    if rollout.held is None:
        return ()
    return (
        RolloutResumed(
            rollout_id=rollout.rollout_id,
            step=rollout.step,
            hold_until=command.now + timedelta(seconds=rollout.hold_left_s),
        ),
    )


def _promote(state: Endpoint, command: PromoteRollout) -> Sequence[Event]:
    if _is_promoted_already(state, command):
        return ()
    rollout = _live(state, command.rollout_id)
    if command.to == "next" and command.from_step is not None and command.from_step > rollout.step:
        raise StepNotReached(command.from_step, rollout.step)
    check_resident({rollout.candidate}, command.resident)
    if command.to == "full" or rollout.is_at_last_step:
        return (completed(state, rollout, "promoted"),)
    return (advanced(state, rollout, "promoted", command.now),)


def _abort(state: Endpoint, command: AbortRollout) -> Sequence[Event]:
    ended = state.ended_rollout(command.rollout_id)
    if ended is not None and ended.outcome == "aborted":
        return ()
    _live(state, command.rollout_id)
    why = f"rollout {command.reason}"
    return (
        *rollout_aborted(state, command.reason, command.detail, writable(command.verdicts)),
        *rolled_back(state, f"{why}: {command.detail}" if command.detail else why),
    )


def _live(state: Endpoint, rollout_id: str) -> Rollout:
    """The rollout an operator names. Raises RolloutEnded, UnknownRollout."""
    if state.rollout is not None and state.rollout.rollout_id == rollout_id:
        return state.rollout
    if (ended := state.ended_rollout(rollout_id)) is not None:
        raise RolloutEnded(ended)
    raise UnknownRollout(rollout_id)


def _is_promoted_already(state: Endpoint, command: PromoteRollout) -> bool:
    ended = state.ended_rollout(command.rollout_id)
    if ended is not None:
        names_its_end = command.to == "full" or command.from_step is not None
        return ended.outcome == "completed" and names_its_end
    rollout = state.rollout
    if rollout is None or rollout.rollout_id != command.rollout_id or command.from_step is None:
        return False
    return command.to == "next" and command.from_step < rollout.step

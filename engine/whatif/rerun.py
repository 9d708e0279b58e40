"""A recorded rollout once more, under another policy.

The windows come as they came, the evidence is folded and acted on by the rules that rollouts live
by. Where the candidate has the share it had, a window counts as it is; where it has another, as
`engine.whatif.estimate` says. People and alerts do what they did, when they did it: a pause, a
promotion from a step of the same weight, an abort.

As long as nothing differs from the record, neither in what was decided nor in what decides, moves
happen when they happened: that the reaction was a little late, or away, is no matter of the policy.
So a rollout under its own policy gives what was recorded, unless its evidence says otherwise.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import TypeAlias

import msgspec

from engine.analysis.evidence import Evidence, Judgement
from engine.analysis.stepping import (
    Abort,
    Action,
    Advance,
    Held,
    Hold,
    Wait,
    next_action,
    settled_at,
)
from engine.whatif.accounts import act_of, course_of, plus
from engine.whatif.course import Act, ActKind, Course, Served, State, WhatIf
from engine.whatif.estimate import Estimates, measured_by
from engine.whatif.known import known_at
from engine.whatif.likeness import is_alike, is_only_later
from engine.whatif.record import Move, RecordedRollout
from events.catalogue.endpoints import Analysis, Step, Verdict
from events.catalogue.traffic import WindowObserved

_Stimulus: TypeAlias = tuple[datetime, int, "int | Move"]
"""Time, rank among those of the same time, and the index of a window or a recorded move."""


def rerun(rollout: RecordedRollout, policy: WhatIf) -> Course:
    """The rollout's course under the policy."""
    run = _Run(rollout, policy.steps or rollout.steps, policy.analysis or rollout.analysis)
    return run.course()


class _Run:
    """One rollout under way."""

    def __init__(
        self, rollout: RecordedRollout, steps: tuple[Step, ...], analysis: Analysis
    ) -> None:
        self._rollout = rollout
        self._steps = steps
        self._analysis = analysis
        self._windows = measured_by(analysis, rollout)
        self._phases = {phase.policy: phase for phase in rollout.phases}
        self._evidence = Evidence(
            baseline=rollout.baseline, candidate=rollout.candidate, analysis=analysis
        )
        self._estimates = Estimates(
            self._windows, baseline=rollout.baseline, candidate=rollout.candidate
        )
        self._placed = 0
        """Windows that were looked at so far."""
        self._served = Served()
        self._is_estimated = self._windows is not rollout.windows
        """Whether some of the evidence is an estimate."""
        self._acts: list[Act] = []
        self._same = analysis == rollout.analysis
        """Nothing differs from the record yet."""
        self._moves_made = 0
        """Recorded moves that were made here too, while nothing differs."""
        self._deferred: Action = Wait()
        self._held: Held | None = None
        self._step = 0
        self._hold_until = rollout.hold_until
        self._hold_ended = False
        """Its end was looked at."""
        self._hold_left = timedelta()
        self._entered: list[datetime] = []
        self._entered_steps: list[int] = []
        self._ended: datetime | None = None
        self._unknown: datetime | None = None
        self._enter(0, rollout.started, recorded_hold=rollout.hold_until)

    def course(self) -> Course:
        known_until = self._rollout.known_until
        for time, rank, what in self._stimuli():
            if time > known_until:
                break
            self._end_hold(time, rank)
            if self._is_over:
                break
            if isinstance(what, Move):
                self._recorded_move(what)
            else:
                self._place_until(what)
                self._look(time)
        self._end_hold(known_until, 2)
        if not self._is_over:
            self._unknown = known_until
        self._place_until(len(self._windows) - 1)
        return course_of(
            self._rollout,
            state=self._state(),
            acts=tuple(self._acts),
            served=self._served,
            unknown=self._unknown,
        )

    @property
    def _is_over(self) -> bool:
        return self._ended is not None or self._unknown is not None

    def _stimuli(self) -> Iterator[_Stimulus]:
        windows = ((time, 0, index) for index, time in enumerate(known_at(self._rollout)))
        moves = ((move.time, 2, move) for move in self._rollout.moves)
        found: list[_Stimulus] = [*windows, *moves]
        found.sort(key=lambda stimulus: stimulus[:2])
        return iter(found)

    # ------------------------------------------------------------------------------------- looking

    def _end_hold(self, before: datetime, rank: int) -> None:
        """Look at the end of the hold, if that is before a time; windows of that time go first."""
        while not self._is_over and self._held is None and not self._hold_ended:
            due = settled_at(self._hold_until)
            if (due, 1) > (before, rank):
                return
            self._hold_ended = True
            self._look(due)

    def _look(self, now: datetime) -> None:
        if self._is_over:
            return
        judgement = self._judge()
        action = self._due(judgement, now)
        if isinstance(action, Wait):
            return
        ahead = self._recorded_ahead
        if ahead is None or not is_only_later(ahead, now):
            self._same = False
            self._take(action, now, judgement)
        elif ahead.is_own:
            self._deferred = action

    def _recorded_move(self, move: Move) -> None:
        if not move.is_own:
            self._by_people(move)
        elif self._recorded_ahead is move:
            judgement = self._judge()
            settled = max(move.time, settled_at(self._hold_until))
            action = self._due(judgement, settled if move.reason == "inconclusive" else move.time)
            self._same = is_alike(action, move)
            due = self._deferred if isinstance(action, Wait) else action
            self._take(due, move.time, judgement, recorded=move)
        if self._same:
            self._moves_made += 1

    @property
    def _recorded_ahead(self) -> Move | None:
        """The next recorded move, while nothing differs."""
        moves = self._rollout.moves
        return moves[self._moves_made] if self._same and self._moves_made < len(moves) else None

    def _judge(self) -> Judgement:
        return self._evidence.judge(self._steps[self._step])

    def _due(self, judgement: Judgement, now: datetime) -> Action:
        action = next_action(
            judgement.outcome,
            step=self._step,
            steps=self._steps,
            hold_over=now >= self._hold_until,
            held=self._held,
            analysis=self._analysis,
        )
        is_early = judgement.outcome == "inconclusive" and now < settled_at(self._hold_until)
        return Wait() if is_early else action

    # -------------------------------------------------------------------------------------- acting

    def _take(
        self, action: Action, now: datetime, judgement: Judgement, *, recorded: Move | None = None
    ) -> None:
        verdicts = judgement.verdicts
        match action:
            case Advance(to_step=int(step), reason=reason):
                self._enter(step, now, recorded_hold=recorded.hold_until if recorded else None)
                self._note("advanced", now, reason, verdicts)
            case Advance(reason=reason):
                self._end("completed", now, reason, verdicts)
            case Hold(reason=reason):
                self._held = reason
                self._note("held", now, reason, verdicts)
            case Abort(reason=reason):
                self._end("aborted", now, reason, verdicts)
            case Wait():
                pass

    def _by_people(self, move: Move) -> None:
        """What somebody did, as far as it can be done here."""
        match move.kind:
            case "held" if self._held != "paused":
                self._hold_left = max(timedelta(), self._hold_until - move.time)
                self._held = "paused"
                self._note("held", move.time, move.reason)
            case "resumed" if self._held is not None:
                recorded = move.hold_until if self._same else None
                self._hold_until = recorded or move.time + self._hold_left
                self._hold_ended = False
                self._held = None
                self._note("resumed", move.time, move.reason)
            case "advanced" if self._is_at_weight_before(move):
                if self._step + 1 < len(self._steps):
                    self._enter(self._step + 1, move.time, recorded_hold=move.hold_until)
                    self._note("advanced", move.time, move.reason)
                else:
                    self._end("completed", move.time, move.reason)
            case "completed" | "aborted":
                self._end(move.kind, move.time, move.reason)
            case _:
                self._same = False

    def _is_at_weight_before(self, move: Move) -> bool:
        return self._steps[self._step].weight == self._rollout.steps[move.step - 1].weight

    def _enter(self, step: int, now: datetime, *, recorded_hold: datetime | None) -> None:
        self._same = self._same and step < len(self._rollout.steps)
        self._same = self._same and self._steps[step] == self._rollout.steps[step]
        own_hold = now + timedelta(seconds=self._steps[step].hold_s)
        self._hold_until = recorded_hold if self._same and recorded_hold else own_hold
        self._hold_ended = False
        self._hold_left = timedelta()
        self._deferred = Wait()
        self._held = None
        self._step = step
        self._entered.append(now)
        self._entered_steps.append(step)
        share = self._steps[step].weight / 100.0
        self._evidence.enter(step=step, policy=len(self._entered), share=share)

    def _end(
        self, action: ActKind, now: datetime, reason: str, verdicts: tuple[Verdict, ...] = ()
    ) -> None:
        self._ended = now
        self._note(action, now, reason, verdicts)

    def _note(
        self, action: ActKind, now: datetime, reason: str, verdicts: tuple[Verdict, ...] = ()
    ) -> None:
        act = act_of(
            self._rollout,
            self._steps,
            action,
            time=now,
            step=self._step,
            reason=reason,
            verdicts=verdicts,
            estimated=self._is_estimated and bool(verdicts),
        )
        self._acts.append(act)

    # ------------------------------------------------------------------------------------- windows

    def _place_until(self, last: int) -> None:
        """Fold windows in, up to and with that index."""
        while self._placed <= last and self._unknown is None:
            self._place(self._placed)
            self._placed += 1

    def _place(self, index: int) -> None:
        window = self._windows[index]
        phase = self._phases[window.policy]
        routed_at = phase.routed_at(window)
        if self._ended is not None and routed_at >= self._ended:
            return
        policy = bisect_right(self._entered, routed_at)
        share = self._steps[self._entered_steps[policy - 1]].weight / 100.0
        if share == phase.share:
            self._observe(msgspec.structs.replace(window, policy=policy), estimated=False)
            return
        self._is_estimated = True
        estimate = self._estimates.window(index, share=share, policy=policy)
        if estimate is None:
            self._unknown = routed_at
        else:
            self._observe(estimate, estimated=True)

    def _observe(self, window: WindowObserved, *, estimated: bool) -> None:
        self._evidence.observe(window)
        self._served = plus(self._served, window, self._rollout.candidate, estimated=estimated)

    def _state(self) -> State:
        if self._ended is None:
            return "running" if self._held is None else "held"
        return "completed" if self._acts[-1].action == "completed" else "aborted"

"""When each window was known to whoever watched the rollout.

A window is on the log shortly after its second, how shortly is not recorded. But a move that a
rollout made by itself carries its evidence, and folding the windows again shows after which of them
the evidence was just that: so at these moments, which matter, what was known is exact. Elsewhere a
window counts as known when its second is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from engine.analysis.evidence import Evidence
from engine.whatif.record import Move, RecordedRollout, window_end

APART_SECONDS_MAX: Final = 5.0
"""How far the end of a window and the move that it led to may be apart."""
_INSTANT: Final = timedelta(microseconds=1)


def known_at(rollout: RecordedRollout) -> list[datetime]:
    """For each window of the rollout, in order: when it was known. Never decreases."""
    times: list[datetime] = []
    latest = rollout.started
    for window in rollout.windows:
        latest = max(latest, window_end(window))
        times.append(latest)
    refold = _Refold(rollout, times)
    for move in rollout.moves:
        refold.reach(move)
    return times


class _Refold:
    """The rollout's evidence, folded as it was."""

    def __init__(self, rollout: RecordedRollout, times: list[datetime]) -> None:
        self._rollout = rollout
        self._times = times
        self._evidence = Evidence(
            baseline=rollout.baseline, candidate=rollout.candidate, analysis=rollout.analysis
        )
        self._phase = 0
        self._step = 0
        self._observed = 0
        self._enter()

    def reach(self, move: Move) -> None:
        """Fold the windows that were known at the move, and put down when they were."""
        if move.is_own and move.verdicts:
            self._find(move)
        self._step = move.step
        if move.kind == "advanced":
            self._phase += 1
            self._enter()

    def _enter(self) -> None:
        phase = self._rollout.phases[self._phase]
        if phase.step is not None:
            self._evidence.enter(step=phase.step, policy=phase.policy, share=phase.share)

    def _find(self, move: Move) -> None:
        windows = self._rollout.windows
        surely = move.time - timedelta(seconds=APART_SECONDS_MAX)
        at_most = move.time + timedelta(seconds=APART_SECONDS_MAX)
        while self._observed < len(windows) and self._times[self._observed] <= surely:
            self._observe()
        while not self._is_evidence_of(move):
            if self._observed == len(windows) or self._times[self._observed] > at_most:
                return
            self._observe()
        _shift(self._times, self._observed, move.time)
        if move.reason == "failed" and self._observed:
            self._times[self._observed - 1] = move.time  # it is what the move was made for

    def _observe(self) -> None:
        self._evidence.observe(self._rollout.windows[self._observed])
        self._observed += 1

    def _is_evidence_of(self, move: Move) -> bool:
        judgement = self._evidence.judge(self._rollout.steps[self._step])
        return judgement.verdicts == move.verdicts


def _shift(times: list[datetime], known: int, at: datetime) -> None:
    """The first `known` windows were known at this time, and the others were not."""
    for index in _from_the_back(times[:known], at):
        times[index] = at
    for index in range(known, len(times)):
        if times[index] > at:
            break
        times[index] = at + _INSTANT


def _from_the_back(times: Sequence[datetime], at: datetime) -> Sequence[int]:
    first = len(times)
    while first and times[first - 1] > at:
        first -= 1
    return range(first, len(times))

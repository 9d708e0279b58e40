"""Sample ratio: do keys fall to the candidate in the proportion of its share?

If not, the arms are not alike, and no comparison of them means anything. The same process as of
failures, on all keys that are seen for the first time, in both directions.
"""

from __future__ import annotations

from typing import Final

from engine.analysis.assignment import MISMATCH_ODDS, GatewayTests
from engine.analysis.looking import Look, Observed, Outcome
from events.catalogue.endpoints import Verdict

ALPHA: Final = 0.001
"""Of its own: a mismatch is a fault of the measurement and not of the candidate."""


class SampleRatio:
    """Never fails a candidate: while it alarms, nothing passes."""

    def __init__(self) -> None:
        self._test = GatewayTests(odds=MISMATCH_ODDS)
        self._baseline = 0
        self._candidate = 0
        self._expected = 0.0

    def observe(self, observed: Observed) -> None:
        baseline, candidate = observed.baseline.units.seen, observed.candidate.units.seen
        self._baseline += baseline
        self._candidate += candidate
        self._expected += observed.share * (baseline + candidate)
        self._test.observe(
            observed.gateway, observed.share, in_baseline=baseline, in_candidate=candidate
        )

    def verdict(self, look: Look) -> Verdict:
        seen = self._baseline + self._candidate
        alarmed = self._test.peak >= 1.0 / ALPHA
        outcome, detail = self._outcome(seen, alarmed=alarmed)
        return Verdict(
            metric="sample_ratio",
            outcome=outcome,
            baseline_samples=self._baseline,
            candidate_samples=self._candidate,
            estimate=(self._candidate - self._expected) / seen if seen else None,
            e_value=self._test.peak if alarmed else self._test.e_value,
            alpha=ALPHA,
            threshold=1.0 / ALPHA,
            detail=detail,
        )

    def _outcome(self, seen: int, *, alarmed: bool) -> tuple[Outcome, str]:
        if alarmed:
            return "inconclusive", (
                f"{self._candidate} of {seen} keys went to the candidate where"
                f" {self._expected:.0f} were to be expected: the versions cannot be compared"
            )
        if not seen:
            return "inconclusive", "no key has been seen"
        return "pass", "keys fall to the candidate in the proportion of its share"

"""Which arm each failure fell in: evidence of harm that is valid at every look.

While the versions do not differ, a failing unit is in the candidate's arm with the probability of
the candidate's share at that moment, whatever the rate of failures is and however it drifts. The
test averages the likelihood ratios of a few larger odds against that (Lindon and Malek, Anytime-
valid inference for multinomial count data, 2022). The average is a martingale that starts at 1: the
probability that it ever reaches 1 / alpha is at most alpha.

Guarantees this for units that are independent of each other, and shares that do not foresee them.
Does not guarantee it when one key is counted more than once, see `events.catalogue.traffic.Units`.
"""

from __future__ import annotations

from math import exp, log, log1p
from typing import Final

HARM_ODDS: Final = (1.25, 1.5, 2.0, 3.0, 5.0)
"""How much likelier to fail a harmful candidate may be."""
MISMATCH_ODDS: Final = (1 / 3, 1 / 2, 2 / 3, 0.8, 1 / 1.1, 1.1, 1.25, 1.5, 2.0, 3.0)
"""How much likelier than its share says a unit may be to be in the candidate's arm, or less."""
LOG_E_MAX: Final = 690.0
"""The evidence is shown as at most e to this, which every reader of JSON can hold."""


class AssignmentTest:
    """Counts of units per arm in, evidence that the candidate gets more than its share out.

    >>> test = AssignmentTest()
    >>> test.observe(0.1, in_baseline=9, in_candidate=1)
    >>> test.e_value < 1
    True
    >>> test.observe(0.1, in_baseline=2, in_candidate=8)
    >>> test.e_value > 20
    True
    """

    __slots__ = ("_logs", "_odds", "_share", "_terms", "e_value", "peak")

    def __init__(self, *, odds: tuple[float, ...] = HARM_ODDS) -> None:
        self._odds = tuple(log(one) for one in odds)
        self._logs = [0.0] * len(odds)
        self._share = 0.0
        self._terms = self._odds
        self.e_value = 1.0
        """Its mean stays 1 while the versions do not differ."""
        self.peak = 1.0
        """The largest e-value so far: an alarm does not end because evidence against it follows."""

    def observe(self, share: float, *, in_baseline: int, in_candidate: int) -> None:
        """Units that failed while the candidate's share was `share`, 0 to 1.

        At share 0 or 1 there is nothing to learn from the arm.
        """
        if not 0.0 < share < 1.0 or in_baseline + in_candidate == 0:
            return
        if share != self._share:
            self._share = share
            self._terms = tuple(log1p(share * (exp(odds) - 1.0)) for odds in self._odds)
        both = in_baseline + in_candidate
        for index, (odds, term) in enumerate(zip(self._odds, self._terms, strict=True)):
            self._logs[index] += in_candidate * odds - both * term
        self.e_value = exp(min(log_mean_exp(self._logs), LOG_E_MAX))
        self.peak = max(self.peak, self.e_value)


class GatewayTests:
    """A test for each gateway, and the mean of their evidence.

    Gateways count keys apart. A key whose requests go to several of them is counted by each, always
    in the same arm, so their counts must not be multiplied; the mean of evidence is evidence
    whether keys stay with a gateway or not. With one gateway it is that gateway's test.
    """

    __slots__ = ("_odds", "_tests", "peak")

    def __init__(self, *, odds: tuple[float, ...] = HARM_ODDS) -> None:
        self._odds = odds
        self._tests: dict[str, AssignmentTest] = {}
        self.peak = 1.0

    def observe(self, gateway: str, share: float, *, in_baseline: int, in_candidate: int) -> None:
        """As `AssignmentTest.observe`."""
        test = self._tests.get(gateway)
        if test is None:
            test = self._tests[gateway] = AssignmentTest(odds=self._odds)
        test.observe(share, in_baseline=in_baseline, in_candidate=in_candidate)
        if in_baseline or in_candidate:
            self.peak = max(self.peak, self.e_value)

    @property
    def e_value(self) -> float:
        if not self._tests:
            return 1.0
        return sum(test.e_value for test in self._tests.values()) / len(self._tests)


def log_mean_exp(logs: list[float]) -> float:
    """The logarithm of the mean of numbers given by their logarithms."""
    largest = max(logs)
    return largest + log(sum(exp(one - largest) for one in logs) / len(logs))

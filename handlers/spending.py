"""What one request takes of its key's budget: reserved when it begins, settled once at its end."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

from engine.budgets import Estimate, Ledger, Refusal, Reservation, Standing, said_by
from engine.budgets.ledger import Key
from engine.runtimes.documents import usage_of

LIMIT_HEADER: Final = "x-ratelimit-limit-tokens"
REMAINING_HEADER: Final = "x-ratelimit-remaining-tokens"
RESET_HEADER: Final = "x-ratelimit-reset-tokens"
RATE_HEADERS: Final = (LIMIT_HEADER, REMAINING_HEADER, RESET_HEADER)
"""As clients of OpenAI's protocol know them."""


class BudgetRefused(Exception):
    """`rate_limited` when the budget is used up; `invalid` for a request that is larger than the
    whole of it, as that is never admitted."""

    def __init__(self, refusal: Refusal, estimate: Estimate, standing: Standing) -> None:
        may_take = (
            f"the request may take {estimate.total} tokens ({estimate.prompt} to be read and "
            f"{estimate.completion} to be said)"
        )
        budget = f"the key's budget is {refusal.budget} tokens a minute"
        self.code = "rate_limited"
        self.fields: dict[str, str] | None = None
        detail = f"{budget}, of which {standing.remaining} are left; {may_take}"
        if refusal.retry_after_s is None:
            self.code = "invalid"
            detail = f"{may_take}, which is more than it ever can: {budget}"
            self.fields = {"body": detail}
        super().__init__(detail)
        self.retry_after_s = refusal.retry_after_s
        self.answer_headers = rate_headers(standing)


class Spending:
    """`with spending:` around the whole of a request; `tell` it the outputs, or each chunk.

    This one is of a key without a budget: it counts nothing and is shared by all of them.
    """

    __slots__ = ()

    def __enter__(self) -> Spending:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None

    def tell(self, answered: Any) -> None:
        """What the version answered, or its next chunk."""

    def headers(self) -> dict[str, str]:
        """Of the answer: RATE_HEADERS, or none."""
        return {}


UNBOUNDED: Final = Spending()


class BoundedSpending(Spending):
    """Of a key with a budget. Entering it raises BudgetRefused.

    What is settled: the tokens that the version tells; if it tells none, the estimate of what it
    read, and of what it said as far as it was told. A request that failed before anything was told
    takes nothing, unless it took its time (`timeout`) or its client left: then it takes what was
    to be read.
    """

    __slots__ = ("_answered", "_budgets", "_estimate", "_key", "_limit", "_reservation", "_said",
                 "_used")  # fmt: skip

    def __init__(self, budgets: Accounting, key: Key, *, limit: int, estimate: Estimate) -> None:
        self._budgets = budgets
        self._key = key
        self._limit = limit
        self._estimate = estimate
        self._reservation: Reservation | None = None
        self._answered = False
        self._said = 0
        self._used: int | None = None

    def __enter__(self) -> Spending:
        self._reservation = self._budgets.reserve(self._key, self._estimate, limit=self._limit)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._reservation is not None, "it was entered"
        self._budgets.settle(self._key, self._reservation, self._taken(error))

    def tell(self, answered: Any) -> None:
        self._answered = True
        usage = usage_of(answered)
        if usage is not None:
            self._used = max(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
        if self._used is None:
            self._said += said_by(answered)

    def headers(self) -> dict[str, str]:
        return rate_headers(self._budgets.standing(self._key, limit=self._limit))

    def _taken(self, error: BaseException | None) -> int:
        if self._used is not None:
            return self._used
        if error is not None and not self._answered and _computed_nothing(error):
            return 0
        return self._estimate.prompt + self._said


class Total:
    """What became of a key's requests at this gateway since its start."""

    __slots__ = ("refusals", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        """Settled."""
        self.refusals = 0


class Accounting:
    """A ledger, its clock, and the sums of what was settled and refused by it."""

    def __init__(self, ledger: Ledger, clock: Callable[[], float]) -> None:
        self.ledger = ledger
        self.clock = clock
        self.totals: dict[Key, Total] = {}
        """As many as keys have had budgets."""

    def reserve(self, key: Key, estimate: Estimate, *, limit: int) -> Reservation:
        """Raises BudgetRefused."""
        now = self.clock()
        outcome = self.ledger.reserve(key, estimate.total, budget=limit, now=now)
        if isinstance(outcome, Refusal):
            self._total(key).refusals += 1
            standing = self.ledger.standing(key, budget=limit, now=now)
            raise BudgetRefused(outcome, estimate, standing)
        return outcome

    def settle(self, key: Key, reservation: Reservation, tokens: int) -> None:
        """Once for each reservation."""
        reservation.settle(tokens, now=self.clock())
        self._total(key).tokens += tokens

    def standing(self, key: Key, *, limit: int) -> Standing:
        return self.ledger.standing(key, budget=limit, now=self.clock())

    def _total(self, key: Key) -> Total:
        total = self.totals.get(key)
        if total is None:
            total = self.totals[key] = Total()
        return total


def rate_headers(standing: Standing) -> dict[str, str]:
    """RATE_HEADERS."""
    values = (str(standing.budget), str(standing.remaining), f"{standing.whole_s:.3f}s")
    return dict(zip(RATE_HEADERS, values, strict=True))


def _computed_nothing(error: BaseException) -> bool:
    return getattr(error, "code", "timeout") != "timeout"

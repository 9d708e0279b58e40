"""Gateways that tell each other late: what they admit together stays within the stated bound."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID, uuid4

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from engine.budgets import Ledger, Refusal, Reservation
from events.catalogue.budgets import TokensUsed

KEY = ("acme", "k1")
BUDGET = 100
DELAY_SECONDS = 2.0


class Request:
    """As a judge sees it who knows everything at once."""

    def __init__(self, gateway: int, reservation: Reservation) -> None:
        self.gateway = gateway
        self.reservation = reservation
        self.settled: tuple[float, int] | None = None
        self.known_to = {gateway}

    def counts(self, now: float) -> int:
        if self.settled is None:
            return self.reservation.tokens
        at, tokens = self.settled
        return tokens if now - at < 60 else 0


class Sent:
    """A report under way."""

    def __init__(self, gateway: int, at: float, report: TokensUsed, tells: list[Request]) -> None:
        self.id: UUID = uuid4()
        self.gateway = gateway
        self.at = at
        self.report = report
        self.tells = tells
        self.due = True


class OneGateway(RuleBasedStateMachine):
    gateways = 1
    requests = Bundle("requests")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_800_000_000.0
        self.ledgers = [Ledger(f"g{i}") for i in range(self.gateways)]
        self.all: list[Request] = []
        self.sent: list[Sent] = []

    @rule(target=requests, gateway=st.integers(0, 9), tokens=st.integers(0, BUDGET + 1))
    def ask(self, gateway: int, tokens: int) -> Request | None:
        gateway %= self.gateways
        outcome = self.ledgers[gateway].reserve(KEY, tokens, budget=BUDGET, now=self.now)
        if isinstance(outcome, Refusal):
            known = sum(r.counts(self.now) for r in self.all if gateway in r.known_to)
            assert self.gateways > 1 or self._counts_longer() + tokens > BUDGET, known
            return None
        request = Request(gateway, outcome)
        untold = sum(r.reservation.tokens for r in self.all if gateway not in r.known_to)
        self.all.append(request)
        assert self._true_use() <= BUDGET + untold
        return request

    @rule(request=requests, share=st.floats(0, 1))
    def settle(self, request: Request | None, share: float) -> None:
        if request is None:
            return
        tokens = int(request.reservation.tokens * share)
        request.reservation.settle(tokens, now=self.now)
        if request.settled is None:
            request.settled = (self.now, tokens)

    @rule(seconds=st.floats(0.05, 5))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        for gateway in range(self.gateways):
            self._tell(gateway)
        for sent in self.sent:
            if self.now - sent.at >= DELAY_SECONDS:
                self._deliver(sent)

    @rule(gateway=st.integers(0, 9))
    def tell(self, gateway: int) -> None:
        self._tell(gateway % self.gateways)

    @rule(which=st.integers(0, 1_000))
    def hear(self, which: int) -> None:
        """In the order of the log as far as it is new, and again and again."""
        if self.sent:
            heard = self.sent[which % len(self.sent)]
            for sent in self.sent[: self.sent.index(heard) + 1]:
                if sent.due or sent is heard:
                    self._deliver(sent)

    @invariant()
    def what_was_settled_in_a_minute_is_within_the_bound(self) -> None:
        settled = sum(r.counts(self.now) for r in self.all if r.settled is not None)
        assert settled <= BUDGET * self.gateways

    def _true_use(self) -> int:
        return sum(request.counts(self.now) for request in self.all)

    def _counts_longer(self) -> int:
        """As the ledger may count: settled tokens for up to a second more."""
        return sum(request.counts(self.now - 1.001) for request in self.all)

    def _tell(self, gateway: int) -> None:
        tells = [request for request in self.all if request.gateway == gateway]
        for tenant, keys in self.ledgers[gateway].report(now=self.now).items():
            assert tenant == "acme"
            at = datetime.fromtimestamp(int(self.now), UTC)
            report = TokensUsed(gateway=f"g{gateway}", at=at, keys=keys)
            self.sent.append(Sent(gateway, self.now, report, tells))
        self.sent = [sent for sent in self.sent if sent.due or self.now - sent.at < 10]

    def _deliver(self, sent: Sent) -> None:
        sent.due = False
        for gateway, ledger in enumerate(self.ledgers):
            ledger.fold(sent.id, "acme", sent.report, now=self.now)
            for request in sent.tells:
                request.known_to.add(gateway)


class ThreeGateways(OneGateway):
    gateways = 3


OneGateway.TestCase.settings = settings(max_examples=50, stateful_step_count=40, deadline=None)
ThreeGateways.TestCase.settings = settings(max_examples=80, stateful_step_count=50, deadline=None)
test_one_gateway = OneGateway.TestCase
test_three_gateways = ThreeGateways.TestCase

"""Gateways that tell each other on a log what keys use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from engine.decisions.tenant import Key, Tenant
from events import EntityId, EventLog, LogUnavailable, connect
from events.catalogue.budgets import TokensUsed
from events.jetstream import JetStream
from handlers.budgets import Budgets, steady_clock
from handlers.http.problems import problem_of
from handlers.keys import Keyring
from handlers.spending import BudgetRefused
from tests.openai.voices import chat

LONG_S = 60.0
BUDGET = 1_000
REPORTS = EntityId("acme", "budget", "acme")
ASKED: tuple[Any, dict[str, Any]] = ({"messages": []}, {"max_tokens": 400})


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = steady_clock()()

    def __call__(self) -> float:
        return self.now


class Stage:
    """One log, one keyring with the key `k1`, and any number of gateways."""

    def __init__(self, log: EventLog) -> None:
        self.log = log
        self.clock = Clock()
        self.keyring = Keyring()
        self.bound(BUDGET)

    def bound(self, tokens_per_minute: int | None) -> None:
        key = Key(secret_sha256="0" * 64, scopes=("infer",), expires_at=None)
        keys = {"k1": replace(key, tokens_per_minute=tokens_per_minute), "free": key}
        self.keyring.restore("acme", Tenant(name="acme", keys=keys))

    def gateway(self, name: str) -> Budgets:
        return Budgets(gateway=name, log=self.log, keyring=self.keyring, clock=self.clock)

    async def told(self) -> list[TokensUsed]:
        found = [recorded.event async for recorded in self.log.read(REPORTS)]
        return [event for event in found if isinstance(event, TokensUsed)]

    async def tell(self, teller: Budgets, *others: Budgets) -> None:
        """Return when the others know it."""
        await teller.report()
        position = await self.log.position()
        async with asyncio.timeout(LONG_S):
            for other in others:
                await other.reach(position)


@asynccontextmanager
async def running(*gateways: Budgets) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(gateway.run()) for gateway in gateways]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


@pytest_asyncio.fixture(params=["memory", "nats"])
async def stage(request: pytest.FixtureRequest, nats_url: str) -> AsyncIterator[Stage]:
    if request.param == "memory":
        async with connect("memory:") as log:
            yield Stage(log)
    else:
        async with JetStream.connect(nats_url) as jetstream:
            yield Stage(jetstream.traffic)


def left(gateway: Budgets) -> int:
    return int(gateway.spending("acme", "k1", *ASKED).headers()["x-ratelimit-remaining-tokens"])


def used(tokens: int) -> dict[str, Any]:
    return chat("yes", usage={"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": tokens})


def spend(gateway: Budgets, tokens: int) -> None:
    with gateway.spending("acme", "k1", *ASKED) as spending:
        spending.tell(used(tokens))


async def test_what_one_gateway_uses_the_other_knows(stage: Stage) -> None:
    one, two = stage.gateway("one-a"), stage.gateway("two-a")
    async with running(one, two):
        spend(one, 300)
        with one.spending("acme", "k1", *ASKED):
            await stage.tell(one, two)
            assert left(one) == left(two) == 300
            with pytest.raises(BudgetRefused), two.spending("acme", "k1", *ASKED):
                pass
        await stage.tell(one, two)
        assert left(two) == 700


async def test_a_request_that_seemed_to_ask_for_nothing_is_settled_as_any(stage: Stage) -> None:
    one = stage.gateway("one-a")
    with one.spending("acme", "k1", {"input": ""}, {}) as spending:
        for _ in range(2):
            await one.report()
        spending.tell(used(300))
    assert left(one) == 700


async def test_a_gateway_that_starts_again_knows_what_its_earlier_self_used(stage: Stage) -> None:
    first = stage.gateway("one-a")
    spend(first, 300)
    await first.report()
    again = stage.gateway("one-b")
    await again.rebuild()
    assert left(again) == 700
    async with running(again):
        spend(again, 100)
        await stage.tell(again, again)
        assert left(again) == 600, "what was read is not heard again, nor is what it told itself"


async def test_what_was_settled_is_told_when_a_gateway_ends(stage: Stage) -> None:
    one = stage.gateway("one-a")
    async with running(one):
        spend(one, 100)
        await stage.tell(one, one)
        spend(one, 300)
    assert [report.keys["k1"].settled for report in await stage.told()] == [100, 300]


async def test_two_gateways_that_do_not_hear_of_each_other_spend_a_budget_each_and_no_more(
    stage: Stage,
) -> None:
    one, two = stage.gateway("one-a"), stage.gateway("two-a")
    for gateway in (one, two):
        for _ in range(5):
            with suppress(BudgetRefused):
                spend(gateway, 400)
        assert left(gateway) == 200
    await one.report()
    await two.report()
    async with running(one, two):
        await stage.tell(one, one, two)
        assert left(one) == left(two) == 0
        for gateway in (one, two):
            with pytest.raises(BudgetRefused), gateway.spending("acme", "k1", *ASKED):
                pass
    told = sum(report.keys["k1"].settled for report in await stage.told())
    assert told == 2 * 800 <= 2 * BUDGET


async def test_reports_that_cannot_be_told_are_told_once_when_the_log_is_back() -> None:
    async with connect("memory:") as log:
        stage = Stage(_Away(log))  # type: ignore[arg-type]
        one = stage.gateway("one-a")
        spend(one, 300)
        await one.report()
        assert not await stage.told()
        stage.log.away = False  # type: ignore[attr-defined]
        await one.report()
        await one.report()
        assert [report.keys["k1"].settled for report in await stage.told()] == [300]


async def test_a_report_that_waited_for_more_than_a_minute_is_not_told() -> None:
    async with connect("memory:") as log:
        stage = Stage(_Away(log))  # type: ignore[arg-type]
        one = stage.gateway("one-a")
        spend(one, 300)
        await one.report()
        stage.clock.now += 63
        stage.log.away = False  # type: ignore[attr-defined]
        await one.report()
        assert not await stage.told()


async def test_a_key_without_a_budget_costs_and_tells_nothing(stage: Stage) -> None:
    one = stage.gateway("one-a")
    with one.spending("acme", "free", *ASKED) as spending:
        spending.tell(used(10**9))
    assert spending.headers() == {}
    await one.report()
    assert not await stage.told()
    assert not one.accounting.totals


async def test_a_budget_that_is_set_holds_for_the_next_request(stage: Stage) -> None:
    one = stage.gateway("one-a")
    spend(one, 700)
    with pytest.raises(BudgetRefused), one.spending("acme", "k1", *ASKED):
        pass
    stage.bound(2_000)
    spend(one, 0)
    stage.bound(500)
    with pytest.raises(BudgetRefused), one.spending("acme", "k1", *ASKED):
        pass
    stage.bound(None)
    assert one.spending("acme", "k1", *ASKED).headers() == {}


class _Failed(Exception):
    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


FAILURES: list[tuple[BaseException, int]] = [
    (_Failed("runtime_failed"), 0),
    (_Failed("invalid"), 0),
    (_Failed("timeout"), 4),
    (asyncio.CancelledError(), 4),
]


@pytest.mark.parametrize(("failure", "tokens"), FAILURES, ids=str)
async def test_a_request_that_failed_takes_what_was_surely_computed(
    failure: BaseException, tokens: int
) -> None:
    async with connect("memory:") as log:
        one = Stage(log).gateway("one-a")
        asked: tuple[Any, dict[str, Any]] = ({"messages": [{}]}, {"max_tokens": 400})
        with suppress(_Failed, asyncio.CancelledError), one.spending("acme", "k1", *asked):
            raise failure
        assert left(one) == BUDGET - tokens


async def test_refusals_say_when_to_ask_again_and_what_can_never_be() -> None:
    async with connect("memory:") as log:
        stage = Stage(log)
        one = stage.gateway("one-a")
        spend(one, 700)
        with pytest.raises(BudgetRefused) as refused, one.spending("acme", "k1", *ASKED):
            pass
        problem, headers = problem_of(refused.value)
        assert (problem.status, problem.code) == (429, "rate_limited")
        assert 60 <= int(headers["Retry-After"]) <= 61
        assert headers["x-ratelimit-remaining-tokens"] == "300"
        larger = one.spending("acme", "k1", {"prompt": "x"}, {"max_tokens": BUDGET})
        with pytest.raises(BudgetRefused) as refused, larger:
            pass
        problem, headers = problem_of(refused.value)
        assert (problem.status, problem.code) == (400, "invalid")
        assert "more than it ever can" in problem.detail
        assert "Retry-After" not in headers


class _Away:
    """A log that takes nothing while it is away."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self.away = True

    async def append(self, *args: Any, **options: Any) -> int:
        if self.away:
            raise LogUnavailable("away")
        return await self._log.append(*args, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

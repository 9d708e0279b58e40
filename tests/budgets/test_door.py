"""Budgets over HTTP: what is answered, and what is settled however a request ends."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from engine.decisions.tenant import Key, Tenant
from events import connect
from handlers.budget_metrics import BudgetMetrics
from handlers.budgets import Budgets, steady_clock
from handlers.http.app import HttpApp
from handlers.keys import Keyring
from tests.openai.conftest import Door
from tests.openai.voices import Answer, Voices, chat, delta

LONG_S = 60.0
BUDGET = 1_000
MESSAGES: Any = [{"role": "user", "content": "abc"}]
PROMPT_TOKENS = 4 + 2 + 1
"""The form of a message, its role, its text."""
USED = {"prompt_tokens": 5, "completion_tokens": 25, "total_tokens": 30}


class BoundedDoor(Door):
    """Its key has a budget, and its clock stands still."""

    def _app(self) -> HttpApp:
        now = steady_clock()()
        self.keyring = Keyring()
        self.bounded = Budgets(gateway="g1", log=self.log, keyring=self.keyring, clock=lambda: now)
        self.budgets = self.bounded
        app = super()._app()
        self.bound(BUDGET)
        return app

    def bound(self, tokens: int | None) -> None:
        key_id = self.tenants.principals[self.key].key_id
        key = Key(
            secret_sha256="0" * 64, scopes=("infer",), expires_at=None, tokens_per_minute=tokens
        )
        self.keyring.restore("acme", Tenant(name="acme", keys={key_id: key}))

    def settled_next(self, monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
        """Set when a request is settled."""
        settled, settle = asyncio.Event(), self.bounded.accounting.settle

        def noting(*args: Any) -> None:
            settle(*args)
            settled.set()

        monkeypatch.setattr(self.bounded.accounting, "settle", noting)
        return settled

    @property
    def left(self) -> int:
        key_id = self.tenants.principals[self.key].key_id
        spending = self.bounded.spending("acme", key_id, None, {})
        return int(spending.headers()["x-ratelimit-remaining-tokens"])


@pytest_asyncio.fixture
async def door() -> AsyncIterator[BoundedDoor]:
    async with connect("memory:") as log:
        made = BoundedDoor(log)
        await made.start()
        yield made
        await made.stop()


@pytest.fixture
def voices(door: BoundedDoor) -> Voices:
    return door.voices


@pytest_asyncio.fixture
async def client(door: BoundedDoor) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=door.base_url, api_key=door.key, max_retries=0, timeout=30
    ) as made:
        yield made


@pytest_asyncio.fixture
async def http(door: BoundedDoor) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {door.key}"}
    async with httpx.AsyncClient(
        base_url=door.server.url,
        headers=headers,
        timeout=LONG_S,
        limits=httpx.Limits(max_connections=200),
    ) as made:
        yield made


WAYS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/chat/completions", {"model": "chat", "messages": MESSAGES, "max_tokens": 100}),
    ("/v1/completions", {"model": "chat", "prompt": "abc", "max_tokens": 100}),
    ("/v1/embeddings", {"model": "chat", "input": "abc"}),
    (
        "/api/v1/endpoints/chat/infer",
        {"inputs": {"messages": MESSAGES}, "parameters": {"max_tokens": 100}},
    ),
]


@pytest.mark.parametrize(("path", "body"), WAYS, ids=[path for path, _ in WAYS])
async def test_every_way_to_ask_settles_what_the_version_tells(
    door: BoundedDoor, voices: Voices, http: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    voices.says["chat"] = chat("yes", usage=USED, data=[])
    answer = await http.post(path, json=body)
    assert answer.status_code == 200
    assert answer.headers["x-ratelimit-limit-tokens"] == "1000"
    assert answer.headers["x-ratelimit-remaining-tokens"] == "970"
    assert 60 <= float(answer.headers["x-ratelimit-reset-tokens"].removesuffix("s")) <= 61
    assert door.left == 970


async def test_tensors_are_counted_as_the_json_they_are(
    door: BoundedDoor, voices: Voices, http: httpx.AsyncClient
) -> None:
    voices.says["chat"] = {"y": [1]}
    tensor = {"name": "x", "shape": [3], "datatype": "INT8", "data": [1, 2, 3]}
    answer = await http.post("/v2/models/chat/infer", json={"inputs": [tensor]})
    assert answer.status_code == 200
    assert door.left == BUDGET - 5  # {"x":[1,2,3]} is 13 bytes


async def test_a_stream_settles_its_usage_and_is_told_what_is_left_at_its_start(
    door: BoundedDoor, voices: Voices, client: openai.AsyncOpenAI
) -> None:
    voices.says["chat"] = [delta("yes"), {"choices": [], "usage": USED}]
    response = await client.chat.completions.with_raw_response.create(
        model="chat", messages=MESSAGES, stream=True, max_tokens=100
    )
    remaining = int(response.headers["x-ratelimit-remaining-tokens"])
    assert remaining == BUDGET - PROMPT_TOKENS - 100
    async for _ in response.parse():
        pass
    assert door.left == BUDGET - 30


async def test_a_stream_whose_client_leaves_settles_what_was_said_so_far(
    door: BoundedDoor,
    voices: Voices,
    client: openai.AsyncOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    voices.says["chat"] = [delta("yes"), delta("and"), asyncio.Event()]
    stream = await client.chat.completions.create(
        model="chat", messages=MESSAGES, stream=True, max_tokens=100
    )
    settled = door.settled_next(monkeypatch)
    for _ in range(2):
        await anext(stream)
    assert door.left == BUDGET - PROMPT_TOKENS - 100
    await stream.close()
    async with asyncio.timeout(LONG_S):
        await settled.wait()
    assert door.left == BUDGET - PROMPT_TOKENS - 2


async def test_a_stream_that_breaks_settles_what_was_said_so_far(
    door: BoundedDoor, voices: Voices, client: openai.AsyncOpenAI
) -> None:
    voices.says["chat"] = [delta("yes"), RuntimeError("broken")]
    stream = await client.chat.completions.create(model="chat", messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass
    assert door.left == BUDGET - PROMPT_TOKENS - 1


async def test_official_clients_read_the_refusal(
    door: BoundedDoor, voices: Voices, client: openai.AsyncOpenAI
) -> None:
    used = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 950}
    voices.says["chat"] = chat("yes", usage=used)
    await client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=100)
    for streams in (False, True):
        asked: Any = {"messages": MESSAGES, "max_tokens": 100, "stream": streams}
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="chat", **asked)
        assert refused.value.status_code == 429
        assert refused.value.code == "rate_limit_exceeded"
        assert 60 <= int(refused.value.response.headers["retry-after"]) <= 61
        assert refused.value.response.headers["x-ratelimit-remaining-tokens"] == "50"
    assert len(voices.asked) == 1


async def test_a_request_larger_than_the_budget_is_invalid_and_says_so(
    voices: Voices, client: openai.AsyncOpenAI
) -> None:
    voices.says["chat"] = chat("yes")
    with pytest.raises(openai.BadRequestError, match="more than it ever can") as refused:
        await client.chat.completions.create(model="chat", messages=MESSAGES, max_tokens=BUDGET)
    assert "retry-after" not in refused.value.response.headers
    assert not voices.asked


async def test_a_key_without_a_budget_hears_of_none(
    door: BoundedDoor, voices: Voices, http: httpx.AsyncClient
) -> None:
    door.bound(None)
    voices.says["chat"] = chat("yes")
    path, body = WAYS[0]
    answer = await http.post(path, json=body)
    assert answer.status_code == 200
    assert not [name for name in answer.headers if name.startswith("x-ratelimit")]


async def test_of_two_hundred_at_once_only_those_pass_that_the_budget_has_room_for(
    door: BoundedDoor,
    voices: Voices,
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go_on = asyncio.Event()
    usage = {"prompt_tokens": 7, "completion_tokens": 100, "total_tokens": 107}
    voices.says["chat"] = chat("yes", usage=usage)
    infer = voices.infer

    async def patient(tenant: str, **asked: Any) -> Answer:
        await go_on.wait()
        return await infer(tenant, **asked)

    monkeypatch.setattr(voices, "infer", patient)
    path, body = WAYS[0]
    asking = [asyncio.create_task(http.post(path, json=body)) for _ in range(200)]
    async with asyncio.timeout(LONG_S):
        while sum(task.done() for task in asking) < 200 - BUDGET // 107:
            await asyncio.wait(
                [task for task in asking if not task.done()], return_when="FIRST_COMPLETED"
            )
        go_on.set()
        answers = await asyncio.gather(*asking)
    assert Counter(answer.status_code for answer in answers) == {200: 9, 429: 191}
    assert door.left == BUDGET - 9 * 107 >= 0


async def test_metrics_tell_what_keys_settled_reserved_and_were_refused(
    door: BoundedDoor, voices: Voices, http: httpx.AsyncClient
) -> None:
    voices.says["chat"] = chat("yes", usage=USED)
    path, body = WAYS[0]
    await http.post(path, json=body)
    door.bound(110)
    assert (await http.post(path, json=body)).status_code == 429
    key_id = door.tenants.principals[door.key].key_id
    collected = {
        sample.name: sample.value
        for family in BudgetMetrics(door.bounded.accounting).collect()
        for sample in family.samples
        if sample.labels == {"tenant": "acme", "key": key_id}
    }
    assert collected == {
        "switchback_budget_tokens_total": 30,
        "switchback_budget_refusals_total": 1,
        "switchback_budget_reserved_tokens": 0,
    }
    assert list(text_string_to_metric_families((await http.get("/metrics")).text))

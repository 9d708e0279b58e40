"""Budgets on a whole system: how they are set, shown and kept."""

from __future__ import annotations

import httpx
import msgspec
import pytest

from switchback.client import Client, Problem
from tests.system import System

ASKED = {"inputs": {"prompt": "abc"}, "parameters": {"max_tokens": 9}}
MAY_TAKE = 10
"""A token to be read, and nine to be said; runtime echo tells of none that it said."""


async def test_budgets_are_set_shown_and_hold_from_the_next_request_on(system: System) -> None:
    client = system.client
    await client.register_model("echoes")
    await client.register_version("echoes", "1.0.0", runtime="echo")
    await client.create_endpoint("echo", model="echoes", version="1.0.0")
    key = await client.issue_key("default", scopes=["infer"], tokens_per_minute=MAY_TAKE + 1)
    assert key["tokens_per_minute"] == await shown(client, key["id"]) == MAY_TAKE + 1
    headers = {"Authorization": f"Bearer {key['key']}"}
    async with httpx.AsyncClient(base_url=system.url, headers=headers, timeout=60) as http:

        async def ask() -> int:
            return (await http.post("/api/v1/endpoints/echo/infer", json=ASKED)).status_code

        assert [await ask() for _ in range(3)] == [200, 200, 429]
        await client.set_key_budget("default", key["id"], tokens_per_minute=MAY_TAKE + 2)
        assert [await ask() for _ in range(2)] == [200, 429]
        await client.set_key_budget("default", key["id"], tokens_per_minute=MAY_TAKE - 1)
        assert await ask() == 400
        await client.set_key_budget("default", key["id"], tokens_per_minute=None)
        assert [await ask() for _ in range(5)] == [200] * 5
        assert await shown(client, key["id"]) is None


async def test_budgets_that_make_no_sense_are_refused(system: System) -> None:
    with pytest.raises(Problem) as refused:
        await system.client.issue_key("default", scopes=["infer"], tokens_per_minute=-1)
    assert refused.value.code == "invalid"
    with pytest.raises(Problem) as refused:
        await system.client.set_key_budget("default", "nobody", tokens_per_minute=1)
    assert refused.value.code == "not_found"


async def test_budgets_can_be_set_by_messages(system: System) -> None:
    key = await system.client.issue_key("default", scopes=["infer"])
    payload = msgspec.json.encode({"key_id": key["id"], "tokens_per_minute": 5})
    bus = system.process.jetstream.bus
    await bus.request("cmd.default.tenant.set_key_budget", payload, timeout_s=60)
    assert system.process.routing.keyring.tokens_per_minute("default", key["id"]) == 5


async def shown(client: Client, key_id: str) -> int | None:
    [tokens] = [
        each["tokens_per_minute"] async for each in client.keys("default") if each["id"] == key_id
    ]
    return tokens  # type: ignore[no-any-return]

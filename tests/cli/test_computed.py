"""A language model from the command line: registered, asked, looked at; a budget for a key."""

from __future__ import annotations

import asyncio

import pytest

from switchback.client import Client
from tests.cli.running import Ended, Up, inside


def _done(up: Up, *arguments: object) -> Ended:
    ended = inside(*arguments, "--data-dir", up.data_dir)
    assert ended.code == 0, ended.err
    return ended


@pytest.fixture(scope="module")
def computed(up: Up) -> Up:
    """Endpoint `computed` on a built-in model, which was asked three times."""
    register = ("versions", "register", "fraud", "6.0.0", "--runtime", "language-model")
    _done(up, *register, "--artifact", "builtin://facts-2")
    _done(up, "endpoints", "create", "computed", "fraud", "6.0.0")

    async def ask() -> None:
        async with Client.from_data_dir(up.data_dir) as client:
            for _ in range(3):
                answer = await client.infer("computed", {"prompt": "The capital of France is"})
                assert answer.outputs["choices"][0]["text"] == " Paris."

    asyncio.run(ask())
    return up


def test_what_a_node_computes_is_a_figure_a_line(computed: Up) -> None:
    table = _done(computed, "nodes", "batching", "local").out
    rows = {line.split("│")[1].strip(): line for line in table.splitlines() if line.count("│") > 2}
    assert {"running", "waiting", "batch use", "prefix hits", "first token ms"} <= rows.keys()
    assert "fraud@6.0.0" in table
    assert max(map(len, table.splitlines())) <= 80


def test_what_a_node_computes_is_there_for_programs(computed: Up) -> None:
    [item] = _done(computed, "nodes", "batching", "local", "--json").json["items"]
    assert (item["model"], item["version"]) == ("fraud", "6.0.0")
    assert item["requests_ended"] == {"stop": 3}


def test_a_key_gets_a_budget_and_loses_it_again(up: Up) -> None:
    issued = _done(
        up, "keys", "issue", "default", "infer", "--tokens-per-minute", "500", "--json"
    ).json

    def budget() -> int | None:
        keys = _done(up, "keys", "list", "default", "--json").json
        listed = keys["items"] if isinstance(keys, dict) else keys
        found: int | None = next(
            key["tokens_per_minute"] for key in listed if key["id"] == issued["id"]
        )
        return found

    assert budget() == 500
    _done(up, "keys", "budget", "default", issued["id"], "--tokens-per-minute", "700")
    assert budget() == 700
    _done(up, "keys", "budget", "default", issued["id"])
    assert budget() is None

"""Every reading verb: tables for people, JSON for programs, from a directory and from a URL."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from switchback.client import Client
from tests.cli.running import Up, cli, done, inside

READING = [
    ["models", "list"],
    ["models", "show", "fraud"],
    ["models", "alias-history", "fraud", "production"],
    ["versions", "list", "fraud"],
    ["versions", "show", "fraud", "2.0.0"],
    ["endpoints", "list"],
    ["endpoints", "show", "score"],
    ["nodes", "list"],
    ["nodes", "show", "local"],
    ["tenants", "show", "default"],
    ["keys", "list", "default"],
    ["history", "score"],
    ["rollout", "status", "rolled"],
    ["compare", "rolled"],
    ["shadow", "rolled"],
]


@pytest.mark.parametrize("arguments", READING, ids=" ".join)
def test_reading_verbs_print_json_and_tables(up: Up, arguments: list[str]) -> None:
    from_directory = inside(*arguments, "--json", "--data-dir", up.data_dir).json
    credentials = up.credentials
    at = {"SWITCHBACK_URL": credentials.url, "SWITCHBACK_KEY": credentials.key}
    assert inside(*arguments, "--json", **at).json == from_directory
    table = inside(*arguments, "--data-dir", up.data_dir).out
    assert table.strip()
    assert not table.startswith(("{", "["))


def test_history_tells_the_endpoints_events_in_order(up: Up) -> None:
    events = history(up)
    assert [event["type"].removeprefix("switchback.endpoint.") for event in events] == [
        "created.v1",
        "swap_requested.v1",
        "swap_completed.v1",
        "rolled_back.v1",
    ]
    positions = [event["position"] for event in events]
    assert positions == sorted(positions)
    told = " ".join(done("history", "score", "--data-dir", up.data_dir).out.split())
    assert "complaints" in told


def test_as_of_a_position_and_a_time_show_the_endpoint_as_it_was(up: Up) -> None:
    swapped = history(up)[2]
    by_position = as_of(up, swapped["position"])
    assert by_position["policy"]["split"] == {"2.0.0": 100.0}
    assert by_position["active"] == "2.0.0"
    assert as_of(up, swapped["time"]) == by_position
    assert as_of(up, swapped["position"] - 1)["active"] == "1.0.0"


async def test_explain_recomputes_a_receipt(up: Up) -> None:
    async with Client.from_data_dir(up.data_dir) as client:
        answer = await client.infer("score", [1], key="user-1")
    explained = done("explain", answer.receipt, "--json", "--data-dir", up.data_dir).json
    assert explained["valid"] is True
    assert explained["version"] == answer.version == "1.0.0"
    assert explained["event"]["type"] == "switchback.endpoint.rolled_back.v1"


def test_events_tail_prints_one_event_a_line(up: Up) -> None:
    last = done("events", "tail", "--last", "3", "--json", "--data-dir", up.data_dir).out
    assert len(last.splitlines()) == 3
    after = done("events", "tail", "--after", "2", "--data-dir", up.data_dir).out
    assert after.split()[0] == "3"


def test_verify_rebuild_and_doctor_find_a_running_up_in_order(up: Up) -> None:
    here = ("--json", "--data-dir", up.data_dir)
    assert {row["result"] for row in done("verify", *here).json} == {"equal"}
    rebuilt = done("rebuild", "endpoints", *here).json
    assert [row["projection"] for row in rebuilt] == ["endpoints"]
    assert cli("rebuild", "no-such-table", *here).code == 1
    findings = done("doctor", *here).json
    assert {finding["state"] for finding in findings} == {"ok"}
    assert {"durability", "log", "streams", "messages", "cache", "gateway"} <= {
        finding["part"] for finding in findings
    }


def test_replay_prints_what_a_log_ends_in() -> None:
    log = Path(__file__).parents[1] / "logs" / "rollback-during-a-swap.jsonl"
    found = done("replay", log, "--json").json
    assert found["events"] == len(log.read_bytes().splitlines())
    assert found["entities"] == {"endpoint": 1, "model": 1, "node": 1, "tenant": 1}
    (endpoint,) = found["endpoints"]
    assert (endpoint["endpoint"], endpoint["active"]) == ("acme/score", "3.0.0")
    assert "acme/score" in done("replay", log).out


def history(up: Up) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = inside(
        "history", "score", "--json", "--data-dir", up.data_dir
    ).json
    return found


def as_of(up: Up, when: object) -> dict[str, Any]:
    found: dict[str, Any] = inside("as-of", "score", when, "--json", "--data-dir", up.data_dir).json
    return found

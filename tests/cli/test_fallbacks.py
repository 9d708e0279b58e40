"""Fallbacks from the command line: set, asked, proved, told, and what they forbid."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from switchback.cli.telling import told
from switchback.client import Client, Inference
from tests.cli.running import Ended, Up, inside

POLICY = {"split": {"3.0.0": 100.0}, "fallback": ["4.0.0", "1.0.0"]}


@pytest.fixture(scope="module")
def backed(up: Up) -> Up:
    """Endpoint `backed`: 3.0.0 answers nothing, 4.0.0 neither, 1.0.0 stands in for both."""
    for version in ("3.0.0", "4.0.0"):
        register = ("versions", "register", "fraud", version, "--runtime", "echo")
        _done(up, *register, "--config", '{"error_rate": 1}')
    _done(up, "endpoints", "create", "backed", "fraud", "3.0.0")
    _done(up, "endpoints", "policy", "backed", _json(POLICY))
    return up


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _run(up: Up, *arguments: object) -> Ended:
    return inside(*arguments, "--data-dir", up.data_dir)


def _done(up: Up, *arguments: object) -> None:
    ended = _run(up, *arguments)
    assert ended.code == 0, ended.err


def _asked(up: Up, endpoint: str) -> Inference:
    async def ask() -> Inference:
        async with Client.from_data_dir(up.data_dir) as client:
            return await client.infer(endpoint, [1], key="user-1")

    return asyncio.run(ask())


def test_a_policy_with_fallbacks_is_shown_as_it_was_given_now_and_then(backed: Up) -> None:
    shown = _run(backed, "endpoints", "show", "backed", "--json").json
    assert shown["policy"] == POLICY
    as_it_was = _run(backed, "as-of", "backed", str(shown["position"]), "--json").json
    assert as_it_was["policy"] == POLICY
    before = _run(backed, "as-of", "backed", str(shown["position"] - 1), "--json").json
    assert before["policy"] == {"split": {"3.0.0": 100.0}}


def test_the_answer_of_a_fallback_is_proved_and_names_the_version_that_failed(backed: Up) -> None:
    answer = _asked(backed, "backed")
    assert (answer.version, answer.attempts) == ("1.0.0", 3)
    explained = _run(backed, "explain", answer.receipt, "--json").json
    assert (explained["version"], explained["instead_of"]) == ("1.0.0", "3.0.0")
    assert explained["valid"] is True
    assert explained["position"] == answer.position


def test_the_answer_of_the_chosen_version_names_no_other(backed: Up) -> None:
    explained = _run(backed, "explain", _asked(backed, "score").receipt, "--json").json
    assert (explained["valid"], explained.get("instead_of")) == (True, None)


def test_history_tells_of_fallbacks_in_their_order(backed: Up) -> None:
    events = _run(backed, "history", "backed", "--json").json
    lines = [told(event["type"], event["data"]) for event in events]
    assert lines[-1] == "policy set: 3.0.0 100, fallback 4.0.0, fallback 1.0.0"


def test_a_fallback_is_not_retired(backed: Up) -> None:
    refused = _run(backed, "versions", "retire", "fraud", "4.0.0")
    assert refused.code == 1
    assert "backed" in refused.err


@pytest.mark.parametrize(
    ("fallback", "where"),
    [
        (["9.9.9"], "fallback[0]"),
        (["1.0.0", "1.0.0"], "fallback[1]"),
        ([f"{i}.0.0" for i in range(9)], "fallback"),
        ("1.0.0", "fallback"),
    ],
)
def test_fallbacks_without_a_meaning_are_refused_by_their_place(
    backed: Up, fallback: object, where: str
) -> None:
    before = _run(backed, "endpoints", "show", "backed", "--json").json
    policy = _json({"split": {"1.0.0": 1}, "fallback": fallback})
    refused = _run(backed, "endpoints", "policy", "backed", policy)
    assert refused.code == 1
    assert where in refused.err
    assert _run(backed, "endpoints", "show", "backed", "--json").json == before


def test_what_is_rolled_back_from_stands_in_for_nobody(backed: Up) -> None:
    _done(backed, "endpoints", "create", "turned", "fraud", "1.0.0")
    _done(backed, "swap", "turned", "2.0.0")
    policy = {"split": {"2.0.0": 1.0}, "fallback": ["2.0.0", "3.0.0"]}
    _done(backed, "endpoints", "policy", "turned", _json(policy))
    _done(backed, "rollback", "turned")
    shown = _run(backed, "endpoints", "show", "turned", "--json").json
    assert shown["policy"] == {"split": {"1.0.0": 100.0}, "fallback": ["3.0.0"]}


def test_quality_needs_a_check_and_one_that_gateways_know(backed: Up) -> None:
    start = ("rollout", "start", "score", "2.0.0", "--metric", "quality")
    missing = _run(backed, *start)
    assert (missing.code, "analysis.check" in missing.err) == (1, True)
    unknown = _run(backed, *start, "--check", "nobody_knows")
    assert (unknown.code, "analysis.check" in unknown.err) == (1, True)
    assert _run(backed, "endpoints", "show", "score", "--json").json["rollout"] is None

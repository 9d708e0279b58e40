"""`rollout` on a running `up`: started, steered, followed to its end."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import msgspec
import pytest

from engine.decisions.rollout_plan import DEFAULT_STEPS
from tests.cli.running import Ended, Up, cli, done, inside

_names = (f"e{number}" for number in count())
LONG = ("--step", "5:3600:100", "--step", "50:3600", "--step", "100:3600")


class Endpoint:
    """An endpoint of its own for each test, on 1.0.0."""

    def __init__(self, up: Up) -> None:
        self.name = next(_names)
        self.here = ("--data-dir", up.data_dir)
        assert inside("endpoints", "create", self.name, "fraud", "1.0.0", *self.here).code == 0

    def rollout(self, verb: str, *arguments: object) -> Ended:
        return inside("rollout", verb, self.name, *arguments, *self.here)

    def started(self, *arguments: object) -> str:
        ended = self.rollout("start", "2.0.0", *(arguments or LONG), "--json")
        assert ended.code == 0, ended.err
        return str(ended.json["id"])


@pytest.fixture
def endpoint(up: Up) -> Iterator[Endpoint]:
    yield Endpoint(up)


def test_a_rollout_is_steered_from_its_first_step_to_its_last(endpoint: Endpoint) -> None:
    endpoint.started()
    assert endpoint.rollout("status", "--json").json["weight"] == 5
    assert "step 2 of 3; 2.0.0 50 %" in endpoint.rollout("promote").out
    assert "held (paused)" in endpoint.rollout("pause").out
    assert "running" in endpoint.rollout("resume").out
    promoted = endpoint.rollout("promote", "--full", "--json").json
    assert (promoted["state"], promoted["weight"]) == ("completed", 100)
    shown = inside("endpoints", "show", endpoint.name, "--json", *endpoint.here).json
    assert (shown["active"], shown["rollout"]) == ("2.0.0", None)


def test_an_abort_returns_the_traffic_and_says_why(endpoint: Endpoint) -> None:
    rollout_id = endpoint.started()
    ended = endpoint.rollout("abort", "--reason", "complaints")
    assert ended.code == 0
    assert "aborted: complaints" in ended.out
    shown = inside("endpoints", "show", endpoint.name, "--json", *endpoint.here).json
    assert shown["policy"]["split"] == {"1.0.0": 100}
    assert endpoint.rollout("abort", rollout_id, "--json").json["detail"] == "complaints"
    paused = endpoint.rollout("pause", rollout_id)
    assert (paused.code, "conflict" in paused.err) == (1, True)


def test_steps_and_limits_come_from_the_command_line(endpoint: Endpoint) -> None:
    endpoint.started("--step", "2.5:60:7", "--max-error-rate", "0.1", "--metric", "timeout_rate")
    shown = endpoint.rollout("status", "--json").json
    assert shown["steps"] == [{"weight": 2.5, "hold_s": 60, "min_samples": 7}]
    assert shown["analysis"] == {"metric": "timeout_rate", "max_error_rate": 0.1}


def test_a_policy_file_is_the_plan_and_the_command_line_wins(
    endpoint: Endpoint, tmp_path: Path
) -> None:
    file = tmp_path / "plan.json"
    analysis = {"alpha": 0.01, "max_error_rate": 0.5}
    plan = {"steps": [{"weight": 20, "hold_s": 3600}], "analysis": analysis}
    file.write_bytes(msgspec.json.encode(plan))
    endpoint.started("--policy", file, "--max-error-rate", "0.2")
    shown = endpoint.rollout("status", "--json").json
    assert shown["steps"] == plan["steps"]
    assert shown["analysis"] == {"alpha": 0.01, "max_error_rate": 0.2}


def test_without_steps_a_rollout_takes_the_servers(endpoint: Endpoint) -> None:
    endpoint.started("--alpha", "0.01")
    shown = endpoint.rollout("status", "--json").json
    assert shown["steps"] == list(msgspec.to_builtins(DEFAULT_STEPS))


@pytest.mark.parametrize("content", ["{", "[]", '{"step": []}', '{"analysis": {"metric": "x"}}'])
def test_a_policy_file_that_is_none_is_named(up: Up, tmp_path: Path, content: str) -> None:
    file = tmp_path / "plan.json"
    file.write_text(content)
    here = ("--data-dir", up.data_dir)
    ended = inside("rollout", "start", "score", "2.0.0", "--policy", file, *here)
    assert ended.code == 1
    assert str(file) in ended.err


def test_an_ended_rollout_is_shown_by_its_id_or_as_the_last(endpoint: Endpoint) -> None:
    first = endpoint.started()
    endpoint.rollout("abort")
    second = endpoint.started()
    endpoint.rollout("promote", "--full")
    assert endpoint.rollout("status", "--json").json["id"] == second
    assert endpoint.rollout("status", first, "--json").json["state"] == "aborted"


@pytest.mark.parametrize(("ending", "code"), [(("promote", "--full"), 0), (("abort",), 1)])
def test_watching_a_rollout_that_has_ended_says_how(
    endpoint: Endpoint, ending: tuple[str, ...], code: int
) -> None:
    endpoint.started()
    endpoint.rollout(*ending)
    assert endpoint.rollout("status", "-w").code == code
    assert endpoint.rollout("status", "-w", "--json").code == code


@pytest.mark.slow
def test_a_watched_rollout_goes_by_without_anybody_and_ends_the_watch(endpoint: Endpoint) -> None:
    endpoint.started("--step", "100:0.1", "--on-inconclusive", "promote")
    ended = cli("rollout", "status", endpoint.name, "-w", *endpoint.here)
    assert ended.code == 0, ended.err
    assert "completed" in ended.out.splitlines()[-1]


def test_an_alert_about_a_rollouts_candidate_aborts_it(endpoint: Endpoint) -> None:
    endpoint.started()
    alert = ("endpoints", "alert", endpoint.name, "errors", "--critical", "--version", "2.0.0")
    assert inside(*alert, *endpoint.here).code == 0
    shown = endpoint.rollout("status", "--json").json
    assert (shown["state"], shown["reason"]) == ("aborted", "alert")
    told = done("history", endpoint.name, *endpoint.here).out
    assert "aborted" in told

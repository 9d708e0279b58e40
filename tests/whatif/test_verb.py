"""`switchback what-if`, as its users have it: one log, a folder of logs, and bad input of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from events import codec
from events.catalogue.endpoints import Analysis, Step
from tests.cli.running import Ended, inside
from tests.logs.record import DIRECTORY
from tests.logs.traffic import Scene
from tests.whatif.recorded import DEEDS, GOLDEN, recorded

LAX = {
    "steps": [{"weight": 30, "hold_s": 4}, {"weight": 100, "hold_s": 4}],
    "analysis": {"alpha": 0.001, "margin": 1.0},
}

BY_ATTRIBUTES = {
    "split": {"1.0.0": 1},
    "rules": [{"name": "beta", "when": {"attributes": {"tier": "beta"}}, "split": {"2.0.0": 1}}],
}


@pytest.fixture
def ask(tmp_path: Path) -> Callable[..., Ended]:
    """`what-if` under a policy given as a value or as bytes."""

    def asked(policy: Any, log: str | Path, *options: object) -> Ended:
        file = tmp_path / "policy.json"
        file.write_bytes(policy if isinstance(policy, bytes) else msgspec.json.encode(policy))
        path = log if isinstance(log, Path) else DIRECTORY / log
        return inside("what-if", path, "--policy", file, *options)

    return asked


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The golden logs with traffic, alone."""
    found = tmp_path / "logs"
    found.mkdir()
    for name in GOLDEN:
        shutil.copy(DIRECTORY / f"{name}.jsonl", found)
    return found


# ---------------------------------------------------------------------------------------- one log


def test_under_its_own_policy_a_rollout_is_the_same(ask: Callable[..., Ended]) -> None:
    ended = ask({}, "judged-rolled-back.jsonl", "--json")
    assert ended.code == 0, ended.err
    (report,) = ended.json["rollouts"]
    assert (report["tenant"], report["endpoint"], report["rollout"]) == (
        "acme",
        "score",
        "canary-1",
    )
    assert report["same"]
    assert report["recorded"] == report["what_if"]
    assert report["recorded"]["state"] == "aborted"
    assert report["detection_difference_s"] == 0.0


def test_it_tells_what_would_have_happened_when(ask: Callable[..., Ended]) -> None:
    policy = {"analysis": {"alpha": 0.2}}
    (report,) = ask(policy, "judged-patiently.jsonl", "--json").json["rollouts"]
    assert not report["same"]
    assert report["detection_difference_s"] < 0
    (act,) = report["what_if"]["acts"]
    assert (act["action"], act["reason"]) == ("aborted", "failed")
    assert act["e_values"]["error_rate"] >= 1 / 0.2
    served = report["what_if"]["served"]
    assert 0 < served["requests"] < report["recorded"]["served"]["requests"]
    told = ask(policy, "judged-patiently.jsonl").out
    assert f"found out {-report['detection_difference_s']:g} s earlier" in told
    assert f"{served['requests']} requests, {served['failed']} failed" in told


def test_estimates_and_the_unknown_are_marked_as_such(ask: Callable[..., Ended]) -> None:
    told = ask({"steps": [{"weight": 50, "hold_s": 60}]}, "judged-completed.jsonl").out
    assert "estimated)" in told
    assert "unknown from" in told


def test_a_split_is_asked_of_the_same_log(ask: Callable[..., Ended]) -> None:
    ended = ask({"split": {"1.0.0": 1, "2.0.0": 1}}, "judged-held.jsonl", "--json")
    (report,) = ended.json["endpoints"]
    versions = report["traffic"]["versions"]
    assert versions["1.0.0"]["requests"] == versions["2.0.0"]["requests"] == 100
    assert report["traffic"]["requests"] == 200
    table = ask({"split": {"1.0.0": 1}}, "judged-held.jsonl")
    assert table.code == 0
    assert "200" in table.out


def test_an_endpoint_and_a_rollout_can_be_named(ask: Callable[..., Ended]) -> None:
    named = ("--endpoint", "score", "--rollout", "canary-1", "--json")
    assert len(ask({}, "judged-held.jsonl", *named).json["rollouts"]) == 1
    for option in (("--endpoint", "other"), ("--rollout", "canary-9")):
        ended = ask({}, "judged-held.jsonl", *option)
        assert ended.code == 1
        assert "no such rollout, but score canary-1" in ended.err


# ---------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("policy", "problem"),
    [
        (b"steps: 5", "malformed"),
        ([], "Expected `object`"),
        ({"step": []}, "unknown field `step`"),
        ({"analysis": {"alhpa": 0.1}}, "unknown field `alhpa`"),
        ({"steps": []}, "steps must be 1 to"),
        ({"steps": [{"weight": 10, "hold_s": 1}] * 2}, "steps[1].weight must be more"),
        ({"steps": [{"weight": 101, "hold_s": 1}]}, "steps[0].weight must be 0 to 100"),
        ({"steps": [{"weight": 10, "hold_s": -1}]}, "steps[0].hold_s must be"),
        ({"analysis": {"metric": "latency"}}, "analysis.max_latency_ms is missing"),
        ({"analysis": {"max_disagreement_rate": 0.1}}, "needs the candidate as a shadow"),
        ({"split": {}}, "split"),
        ({"split": {"1.0.0": -1}}, "split.1.0.0"),
        (BY_ATTRIBUTES, "what attributes requests had is not in a log"),
    ],
)
def test_a_policy_that_cannot_be_is_refused_in_one_line(
    ask: Callable[..., Ended], policy: Any, problem: str
) -> None:
    ended = ask(policy, "judged-held.jsonl")
    assert (ended.code, ended.out) == (1, "")
    assert ended.err.startswith("error: ")
    assert problem in ended.err
    assert ended.err.count("\n") == 1


def test_a_log_that_holds_nothing_to_ask_about_says_so(ask: Callable[..., Ended]) -> None:
    ended = ask({}, "alias-moves.jsonl")
    assert (ended.code, ended.err) == (1, "error: the log holds no rollout\n")
    ended = ask({}, "canary-completed.jsonl")
    assert ended.code == 1
    assert "no traffic windows" in ended.err
    assert "--traffic" in ended.err


@pytest.mark.parametrize("text", [b"not a log\n", b"{}\n", b"\x89PNG\r\n\x1a\n\x00"])
def test_a_file_that_is_no_log_is_named_with_its_line(
    ask: Callable[..., Ended], tmp_path: Path, text: bytes
) -> None:
    path = tmp_path / "holiday.jsonl"
    path.write_bytes(text)
    ended = ask({}, path)
    assert ended.code == 1
    assert f"line 1 of {path}" in ended.err


def test_a_file_that_is_not_there_is_named(ask: Callable[..., Ended], tmp_path: Path) -> None:
    ended = ask({}, tmp_path / "gone.jsonl")
    assert ended.code == 1
    assert "gone.jsonl" in ended.err
    ended = inside("what-if", DIRECTORY / "judged-held.jsonl", "--policy", tmp_path / "gone.json")
    assert ended.code == 1
    assert "gone.json" in ended.err


def test_wrong_use_is_exit_code_2(ask: Callable[..., Ended]) -> None:
    assert inside("what-if").code == 2
    assert inside("what-if", DIRECTORY / "judged-held.jsonl").code == 2
    split = {"split": {"1.0.0": 1}}
    assert ask(split, DIRECTORY).code == 2
    assert ask(split, "judged-held.jsonl", "--rollout", "canary-1").code == 2


# ---------------------------------------------------------------------------------------- back-test


def results(ended: Ended) -> dict[str, str]:
    return {each["log"].removesuffix(".jsonl"): each["result"] for each in ended.json["tried"]}


def test_the_recorded_policy_lets_nothing_bad_through(
    ask: Callable[..., Ended], folder: Path
) -> None:
    ended = ask({}, folder, "--json")
    assert ended.code == 0, ended.err
    assert results(ended) == {
        "judged-completed": "passed",
        "judged-held": "undecided",
        "judged-patiently": "caught",
        "judged-rolled-back": "caught",
        "judged-sample-ratio": "undecided",
    }
    assert (ended.json["caught"], ended.json["let_through"]) == (2, 0)


def test_a_lax_policy_fails_the_back_test_and_the_log_is_named(
    ask: Callable[..., Ended], folder: Path
) -> None:
    ended = ask(LAX, folder, "--json")
    assert ended.code == 1
    assert results(ended)["judged-patiently"] == "let through"
    assert "error: judged-patiently.jsonl: 2.0.0 is bad" in ended.err
    table = ask(LAX, folder)
    assert table.code == 1
    assert "1 let through" in table.out


def test_what_is_said_beside_a_log_is_believed_before_it(
    ask: Callable[..., Ended], folder: Path
) -> None:
    (folder / "judged-completed.expect.json").write_text('{"canary-1": "bad"}')
    (folder / "judged-rolled-back.expect.json").write_text('{"canary-1": "good"}')
    ended = ask({}, folder, "--json")
    assert ended.code == 1
    assert results(ended)["judged-completed"] == "let through"
    assert results(ended)["judged-rolled-back"] == "stopped"
    (expected,) = [each for each in ended.json["tried"] if each["log"] == "judged-completed.jsonl"]
    assert (expected["label"], expected["expected"]) == ("bad", True)


def test_what_people_ended_says_nothing_about_the_policy(
    ask: Callable[..., Ended], tmp_path: Path
) -> None:
    """It was rolled back by hand, so it is bad; but the policy did not find that out."""
    scene = Scene(requests_per_s=20, deeds=[(5.0, DEEDS["roll back"])])
    step = Step(weight=50.0, hold_s=60.0)
    log = recorded("by hand", scene, step, analysis=Analysis(), seconds=10)
    folder = tmp_path / "by-hand"
    folder.mkdir()
    lines = [codec.encode_recorded(each) + b"\n" for each in log]
    (folder / "by-hand.jsonl").write_bytes(b"".join(lines))
    ended = ask({}, folder, "--json")
    assert ended.code == 0, ended.err
    (tried,) = ended.json["tried"]
    assert (tried["label"], tried["what_if"]["reason"], tried["result"]) == (
        "bad",
        "rolled_back",
        "undecided",
    )
    assert "says nothing about the policy" in ask({}, folder).out


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        ('{"canary-1": "ugly"}', "Invalid enum value"),
        ('{"canary-7": "bad"}', "holds no rollout canary-7"),
        ("bad", "malformed"),
    ],
)
def test_a_label_that_cannot_be_is_named(
    ask: Callable[..., Ended], folder: Path, labels: str, problem: str
) -> None:
    (folder / "judged-held.expect.json").write_text(labels)
    ended = ask({}, folder)
    assert ended.code == 1
    assert "judged-held.expect.json" in ended.err
    assert problem in ended.err


def test_a_broken_log_is_named_and_the_others_are_tested(
    ask: Callable[..., Ended], folder: Path
) -> None:
    (folder / "broken.jsonl").write_text("{}\n")
    ended = ask({}, folder, "--json")
    assert ended.code == 1
    assert "broken.jsonl" in ended.err
    assert len(ended.json["tried"]) == len(GOLDEN)
    (broken,) = ended.json["not_tried"]
    assert (broken["log"], broken["broken"]) == ("broken.jsonl", True)


def test_logs_without_rollouts_are_listed_and_do_no_harm(ask: Callable[..., Ended]) -> None:
    ended = ask({}, DIRECTORY)
    assert ended.code == 0, ended.err
    assert "not tried, as the log holds no rollout: " in ended.out
    assert "alias-moves.jsonl" in ended.out


def test_a_folder_with_nothing_to_test_fails(ask: Callable[..., Ended], tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no log" in ask({}, empty).err
    shutil.copy(DIRECTORY / "alias-moves.jsonl", empty)
    ended = ask({}, empty)
    assert ended.code == 1
    assert "no log of" in ended.err

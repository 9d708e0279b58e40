"""Operating errors: exit code 1, one line on standard error, never a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest

from switchback.embedded import free_port
from tests.cli.running import Ended, Up, cli, inside


def assert_failed(ended: Ended, *words: str) -> None:
    assert ended.code == 1
    assert ended.out == ""
    assert ended.err.startswith("error: ")
    assert ended.err.count("\n") == 1, ended.err
    for word in words:
        assert word in ended.err


def test_a_gateway_that_is_not_there() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert_failed(cli("models", "list", "--url", url, "--key", "k"), url)


@pytest.mark.parametrize("verb", [["models", "list"], ["verify"], ["doctor"], ["rebuild"]])
def test_a_data_directory_that_is_not_there(tmp_path: Path, verb: list[str]) -> None:
    missing = tmp_path / "nowhere"
    assert_failed(inside(*verb, "--data-dir", missing), str(missing), "switchback up")
    assert not missing.exists()


def test_a_url_without_a_key() -> None:
    assert_failed(inside("models", "list", "--url", "http://127.0.0.1:1"), "SWITCHBACK_KEY")


def test_an_unknown_setting(tmp_path: Path) -> None:
    ended = cli("doctor", "--data-dir", tmp_path, SWITCHBACK_NO_SUCH="1")
    assert_failed(ended, "SWITCHBACK_NO_SUCH", "no such setting")


def test_roles_without_external_servers() -> None:
    assert_failed(inside("serve", "gateway"), "SWITCHBACK_NATS_URL", "SWITCHBACK_POSTGRES_DSN")


def test_a_moment_that_is_none(up: Up) -> None:
    assert_failed(cli("as-of", "score", "tomorrow", "--data-dir", up.data_dir), "tomorrow")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["endpoints", "show", "nobody"], ["not_found"]),
        (["history", "nobody"], ["not_found"]),
        (["as-of", "score", "1"], ["not_found"]),
        (["swap", "score", "9.9.9"], ["invalid", "to"]),
        (["rollback", "nobody"], ["not_found"]),
        (["endpoints", "policy", "score", '{"split": {"1.0.0": -1}}'], ["invalid", "split"]),
        (["endpoints", "policy", "score", "{"], ["POLICY"]),
        (["rollout", "status", "nobody"], ["not_found"]),
        (["rollout", "status", "score"], ["never was in a rollout"]),
        (["rollout", "promote", "score"], ["is in no rollout"]),
        (["rollout", "abort", "score", "unknown"], ["not_found"]),
        (["rollout", "start", "score", "9.9.9"], ["invalid", "to"]),
        (["rollout", "start", "score", "1.0.0"], ["invalid", "to"]),
        (["rollout", "start", "score", "2.0.0", "--step", "5:-1"], ["invalid", "steps[0].hold_s"]),
        (["rollout", "start", "score", "2.0.0", "--alpha", "2"], ["invalid", "analysis.alpha"]),
        (["rollout", "start", "score", "2.0.0", "--policy", "none.json"], ["none.json"]),
        (["compare", "nobody"], ["not_found"]),
        (["compare", "score", "--since", "0"], ["invalid", "since_s"]),
        (["shadow", "nobody"], ["not_found"]),
        (["models", "show", "evt.>"], ["invalid"]),
        (["explain", "forged"], ["invalid"]),
        (["versions", "retire", "fraud", "1.0.0"], ["conflict"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_the_gateway_refuses(up: Up, arguments: list[str], words: list[str]) -> None:
    assert_failed(inside(*arguments, "--data-dir", up.data_dir), *words)


def test_a_second_up_in_the_same_directory(up: Up) -> None:
    ended = cli("up", "--data-dir", up.data_dir, "--port", "0")
    assert_failed(ended, str(up.data_dir), "in use")


def test_a_wrong_key(up: Up) -> None:
    ended = cli("models", "list", "--url", up.credentials.url, "--key", "sb_wrong")
    assert_failed(ended, "unauthenticated")


def test_replay_names_the_line_of_the_first_bad_event(tmp_path: Path) -> None:
    good = Path(__file__).parents[1] / "logs" / "alias-moves.jsonl"
    lines = good.read_bytes().splitlines()
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b"\n".join([*lines[:4], b'{"not": "an event"}', *lines[5:]]))
    assert_failed(inside("replay", bad), f"line 5 of {bad}")


def test_replay_names_the_event_that_cannot_follow(tmp_path: Path) -> None:
    good = Path(__file__).parents[1] / "logs" / "alias-moves.jsonl"
    lines = [line for line in good.read_bytes().splitlines() if b"model.registered" not in line]
    bad = tmp_path / "bad.jsonl"
    bad.write_bytes(b"\n".join(renumbered(lines)))
    assert_failed(inside("replay", bad), "event 3", "version_registered")


def test_replay_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    assert_failed(inside("replay", tmp_path / "none.jsonl"), "none.jsonl")


def renumbered(lines: list[bytes]) -> list[bytes]:
    """Lines of a log at positions without gaps."""
    return [
        line.rpartition(b'"position":')[0] + b'"position":%d}' % position
        for position, line in enumerate(lines, start=1)
    ]

"""Help texts, and mistakes on the command line."""

from __future__ import annotations

import pytest

from switchback.cli import verbs
from tests.cli.running import cli

GROUPS = {
    "models": ["list", "show", "register", "alias", "alias-history"],
    "versions": ["list", "show", "register", "retire"],
    "endpoints": ["list", "show", "create", "policy", "alert"],
    "nodes": ["list", "show", "batching", "drain"],
    "rollout": ["start", "status", "promote", "pause", "resume", "abort"],
    "tenants": ["create", "show", "quota"],
    "keys": ["list", "issue", "revoke"],
    "events": ["tail", "export", "import"],
}


def test_the_help_names_every_verb() -> None:
    ended = cli("--help")
    assert ended.code == 0
    assert all(verb in ended.out for verb in verbs.MODULES)


@pytest.mark.parametrize("verb", sorted(verbs.MODULES.keys() - GROUPS.keys()))
def test_every_verb_has_a_help_text(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verbs.run([verb, "--help"]) == 0
    assert f"Usage: switchback {verb}" in capsys.readouterr().out


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_every_group_helps_with_each_of_its_verbs(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verbs.run([group, "--help"]) == 0
    shown = capsys.readouterr().out
    for verb in GROUPS[group]:
        assert verb in shown
        assert verbs.run([group, verb, "--help"]) == 0
        assert "--data-dir" in capsys.readouterr().out


def test_verbs_of_later_parts_are_not_there_yet(capsys: pytest.CaptureFixture[str]) -> None:
    assert verbs.run(["experiments"]) == 2
    capsys.readouterr()


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-verb"],
        ["swap", "score"],
        ["swap", "score", "2.0.0", "--timeout", "soon"],
        ["models", "list", "--no-such-option"],
        ["serve", "no-such-role"],
        ["rollout", "start", "score"],
        ["rollout", "start", "score", "2.0.0", "--step", "5"],
        ["rollout", "start", "score", "2.0.0", "--step", "5:30:100:1"],
        ["rollout", "start", "score", "2.0.0", "--step", "nan:30"],
        ["rollout", "start", "score", "2.0.0", "--step", "5:30:many"],
        ["rollout", "start", "score", "2.0.0", "--alpha", "nan"],
        ["rollout", "start", "score", "2.0.0", "--max-error-rate", "inf"],
        ["rollout", "start", "score", "2.0.0", "--metric", "beauty"],
        ["keys", "issue", "default", "no-such-scope"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_exit_code_2_and_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert verbs.run(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ")
    assert shown.err.count("\n") == 1


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    assert verbs.run(["--version"]) == 0
    assert capsys.readouterr().out == "0.1.0\n"

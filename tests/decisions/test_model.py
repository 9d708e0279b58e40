"""What can happen to a model, its versions and their aliases."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from engine.decisions.model import (
    ALIASES_MAX,
    DECIDER,
    Command,
    InvalidAlias,
    InvalidModel,
    InvalidVersion,
    LineageCycle,
    ModelExists,
    MoveAlias,
    ParentMissing,
    RegisterModel,
    RegisterVersion,
    RetireVersion,
    RuntimeUnavailable,
    UnknownModel,
    UnknownVersion,
    VersionAliased,
    VersionExists,
    VersionIsRetired,
    VersionRouted,
)
from events import Event
from events.catalogue.models import (
    AliasMoved,
    Artifact,
    ModelRegistered,
    VersionRegistered,
    VersionRetired,
)
from switchback.testing import Given

RUNTIMES = frozenset({"echo", "python"})
REGISTERED = ModelRegistered(name="fraud", description="finds it", labels={"team": "risk"})
REGISTER = RegisterModel(name="fraud", description="finds it", labels={"team": "risk"})
ARTIFACT = Artifact(uri="file:///srv/fraud", sha256="5e" * 32, size_bytes=0)
BODY: dict[str, Any] = {
    "runtime": "python",
    "config": {"factory": "fraud.model:Classifier"},
    "artifact": ARTIFACT,
    "memory_bytes": 1_000,
    "labels": {"commit": "abc"},
    "metrics": {"accuracy": 0.97},
}
REGISTER_V1 = RegisterVersion(version="1.0.0", runtimes=RUNTIMES, **BODY)
V1 = VersionRegistered(version="1.0.0", **BODY)
V2 = VersionRegistered(version="2.0.0", runtime="echo", parent="fraud@1.0.0")
STABLE = AliasMoved(alias="stable", to_version="1.0.0")
NOT_ROUTED: frozenset[str] = frozenset()


def echo(version: str, **body: Any) -> RegisterVersion:
    return RegisterVersion(version=version, runtime="echo", runtimes=RUNTIMES, **body)


def test_a_model_is_registered_once(given: Given) -> None:
    given(DECIDER).when(REGISTER).then([REGISTERED]).when(REGISTER).then([])


@pytest.mark.parametrize("change", [{"description": "other"}, {"labels": {}}])
def test_a_name_is_never_given_to_another_model(given: Given, change: dict[str, Any]) -> None:
    other = replace(REGISTER, **change)
    given(DECIDER, [REGISTERED]).when(other).refused(ModelExists, name="fraud", code="conflict")


@pytest.mark.parametrize(
    ("command", "path"),
    [
        (RegisterModel(name="a.b"), "name"),
        (RegisterModel(name="m", description="x" * 2_001), "description"),
        (RegisterModel(name="m", labels={f"l{i}": "" for i in range(65)}), "labels"),
        (RegisterModel(name="m", labels={"": "x"}), "labels."),
        (RegisterModel(name="m", labels={"l": "x" * 257}), "labels.l"),
    ],
)
def test_a_model_beyond_the_limits_is_refused(
    given: Given, command: RegisterModel, path: str
) -> None:
    outcome = given(DECIDER).when(command)
    outcome.refused(InvalidModel)
    assert list(outcome.fields) == [path]


@pytest.mark.parametrize(
    "command",
    [
        REGISTER_V1,
        MoveAlias(alias="stable", version="1.0.0"),
        RetireVersion(version="1.0.0", routed_by=NOT_ROUTED),
    ],
)
def test_nothing_can_be_done_to_a_model_that_does_not_exist(given: Given, command: Command) -> None:
    given(DECIDER).when(command).refused(UnknownModel, code="not_found")


def test_a_version_is_registered_once(given: Given) -> None:
    given(DECIDER, [REGISTERED]).when(REGISTER_V1).then([V1]).when(REGISTER_V1).then([])


def test_a_repeat_is_recognised_whatever_the_facts_say_by_then(given: Given) -> None:
    elsewhere = replace(REGISTER_V1, runtimes=frozenset({"echo"}))
    given(DECIDER, [REGISTERED, V1]).when(elsewhere).then([])
    retired = VersionRetired(version="1.0.0")
    given(DECIDER, [REGISTERED, V1, retired]).when(REGISTER_V1).then([])


@pytest.mark.parametrize(
    "change",
    [
        {"config": {"factory": "fraud.model:Other"}},
        {"artifact": replace(ARTIFACT, sha256="00" * 32)},
        {"memory_bytes": None},
        {"labels": {}},
        {"metrics": {}},
        {"parent": "fraud@0.9.0"},
    ],
)
def test_a_version_never_changes(given: Given, change: dict[str, Any]) -> None:
    given(DECIDER, [REGISTERED, V1]).when(replace(REGISTER_V1, **change)).refused(
        VersionExists, version="1.0.0", code="conflict"
    )


@pytest.mark.parametrize("runtime", ["language-model", "upstream", "cobol"])
def test_a_runtime_that_this_build_lacks_is_refused_with_those_it_has(
    given: Given, runtime: str
) -> None:
    outcome = given(DECIDER, [REGISTERED]).when(replace(REGISTER_V1, runtime=runtime))
    outcome.refused(RuntimeUnavailable, runtime=runtime, available=RUNTIMES)
    assert "which has echo, python" in outcome.fields["runtime"]


def test_a_runtime_that_is_switched_off_is_refused(given: Given) -> None:
    off = replace(REGISTER_V1, runtimes=frozenset({"echo"}))
    given(DECIDER, [REGISTERED]).when(off).refused(RuntimeUnavailable)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"version": "1.0"}, "version"),
        ({"artifact": None}, "artifact"),
        ({"artifact": replace(ARTIFACT, sha256="5e" * 31)}, "artifact.sha256"),
        ({"artifact": replace(ARTIFACT, sha256="5E" * 32)}, "artifact.sha256"),
        ({"artifact": replace(ARTIFACT, size_bytes=-1)}, "artifact.size_bytes"),
        ({"artifact": replace(ARTIFACT, size_bytes=2**63)}, "artifact.size_bytes"),
        ({"artifact": replace(ARTIFACT, uri="http://example.org/m")}, "artifact.uri"),
        ({"artifact": replace(ARTIFACT, uri="file://host/m")}, "artifact.uri"),
        ({"artifact": replace(ARTIFACT, uri="file:///a\n")}, "artifact.uri"),
        ({"artifact": replace(ARTIFACT, uri="file:///" + "a" * 2_048)}, "artifact.uri"),
        ({"memory_bytes": 0}, "memory_bytes"),
        ({"memory_bytes": 2**63}, "memory_bytes"),
        ({"parent": "1.0.0"}, "parent"),
        ({"parent": "fraud@1.0"}, "parent"),
        ({"parent": "fr.aud@1.0.0"}, "parent"),
        ({"metrics": {"loss": float("nan")}}, "metrics.loss"),
        ({"metrics": {"": 1.0}}, "metrics."),
        ({"metrics": {f"m{i}": 0.0 for i in range(65)}}, "metrics"),
        ({"labels": {f"l{i}": "" for i in range(65)}}, "labels"),
        ({"labels": {"x" * 65: ""}}, "labels." + "x" * 64),
        ({"config": {}}, "config.factory"),
        ({"config": {"factory": "fraud.model"}}, "config.factory"),
        ({"config": {"factory": "os:system\n"}}, "config.factory"),
        ({"config": {"factory": 7}}, "config.factory"),
        ({"config": {"factory": "m:f", "gpu": True}}, "config.gpu"),
    ],
)
def test_a_malformed_version_is_refused_and_the_field_named(
    given: Given, change: dict[str, Any], path: str
) -> None:
    outcome = given(DECIDER, [REGISTERED]).when(replace(REGISTER_V1, **change))
    outcome.refused(InvalidVersion)
    assert list(outcome.fields) == [path]


def test_every_bad_field_is_named_at_once(given: Given) -> None:
    command = echo("x", memory_bytes=-1, config={"error_rate": 2, "colour": "red"})
    outcome = given(DECIDER, [REGISTERED]).when(command)
    assert set(outcome.fields) == {
        "version",
        "memory_bytes",
        "config.error_rate",
        "config.colour",
    }


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"answer": {"any": ["json", None, 1.5]}},
        {"latency_ms": 0, "jitter_ms": 12.5, "error_rate": 1, "seed": 0},
        {"error_rate": 0.0},
        {"load_ms": 800, "load_error": "no such weights", "ballast_bytes": 1_000_000},
    ],
)
def test_echo_takes_what_rehearsals_need(given: Given, config: dict[str, Any]) -> None:
    given(DECIDER, [REGISTERED]).when(echo("1.0.0", config=config)).then(
        [VersionRegistered(version="1.0.0", runtime="echo", config=config)]
    )


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"latency_ms": -1}, "config.latency_ms"),
        ({"latency_ms": "1"}, "config.latency_ms"),
        ({"latency_ms": float("nan")}, "config.latency_ms"),
        ({"jitter_ms": 3_600_001}, "config.jitter_ms"),
        ({"error_rate": 1.01}, "config.error_rate"),
        ({"error_rate": True}, "config.error_rate"),
        ({"seed": 1.5}, "config.seed"),
        ({"seed": -1}, "config.seed"),
        ({"seed": 2**63}, "config.seed"),
        ({"answer": "x" * 16_384}, "config"),
    ],
)
def test_echo_refuses_the_rest(given: Given, config: dict[str, Any], path: str) -> None:
    outcome = given(DECIDER, [REGISTERED]).when(echo("1.0.0", config=config))
    outcome.refused(InvalidVersion)
    assert list(outcome.fields) == [path]


@pytest.mark.parametrize(("depth", "taken"), [(31, True), (32, False), (100_000, False)])
def test_a_configuration_nests_only_so_deep(given: Given, depth: int, taken: bool) -> None:
    nested: list[Any] = ["answer"]
    for _ in range(depth - 1):
        nested = [nested]
    outcome = given(DECIDER, [REGISTERED]).when(echo("1.0.0", config={"answer": nested}))
    assert list(outcome.fields) == ([] if taken else ["config"])


SEMVER_EXAMPLES = [
    "0.0.4",
    "1.2.3",
    "10.20.30",
    "1.1.2-prerelease+meta",
    "1.1.2+meta",
    "1.1.2+meta-valid",
    "1.0.0-alpha",
    "1.0.0-alpha.beta.1",
    "1.0.0-alpha0.valid",
    "1.0.0-alpha.0valid",
    "1.0.0-alpha-a.b-c-somethinglong+build.1-aef.1-its-okay",
    "1.0.0-rc.1+build.123",
    "1.0.0-0A.is.legal",
    "1.2.3----RC-SNAPSHOT.12.9.1--.12+788",
    "1.0.0+0.build.1-rc.10000aaa-kk-0.1",
    "99999999999999999999999.999999999999999999.99999999999999999",
]
SEMVER_COUNTEREXAMPLES = [
    "",
    "1",
    "1.2",
    "1.2.3-0123",
    "1.2.3-0123.0123",
    "1.1.2+.123",
    "+invalid",
    "-invalid",
    "alpha",
    "1.0.0-alpha_beta",
    "1.0.0-alpha..",
    "1.0.0-alpha..1",
    "01.1.1",
    "1.01.1",
    "1.1.01",
    "1.2.3.DEV",
    "1.2-SNAPSHOT",
    "1.1.2+build+again",
    "-1.0.3-gamma+b7718",
    "v1.0.0",
    "1.0.0\n",
    " 1.0.0",
    "١.0.0",
    "1.0.0-" + "a" * 59,
]


@pytest.mark.parametrize("version", [*SEMVER_EXAMPLES, "1.0.0-" + "a" * 58])
def test_semantic_versions_are_taken(given: Given, version: str) -> None:
    given(DECIDER, [REGISTERED]).when(echo(version)).then(
        [VersionRegistered(version=version, runtime="echo")]
    )


@pytest.mark.parametrize("version", SEMVER_COUNTEREXAMPLES)
def test_other_versions_are_refused(given: Given, version: str) -> None:
    outcome = given(DECIDER, [REGISTERED]).when(echo(version))
    outcome.refused(InvalidVersion)
    assert list(outcome.fields) == ["version"]


def test_a_child_names_its_parent(given: Given) -> None:
    command = echo("2.0.0", parent="fraud@1.0.0")
    given(DECIDER, [REGISTERED, V1]).when(command).then([V2]).when(command).then([])


def test_a_retired_parent_is_a_parent_still(given: Given) -> None:
    history = [REGISTERED, V1, VersionRetired(version="1.0.0")]
    given(DECIDER, history).when(echo("2.0.0", parent="fraud@1.0.0")).then([V2])


def test_a_parent_that_is_not_registered_is_refused(given: Given) -> None:
    command = echo("2.0.0", parent="fraud@1.5.0")
    given(DECIDER, [REGISTERED, V1]).when(command).refused(ParentMissing, parent="fraud@1.5.0")


def test_what_the_model_itself_says_of_a_parent_beats_the_fact(given: Given) -> None:
    claimed = frozenset({"fraud@1.5.0"})
    command = echo("2.0.0", parent="fraud@1.5.0", known_parents=claimed)
    given(DECIDER, [REGISTERED, V1]).when(command).refused(ParentMissing)


def test_a_parent_in_another_model_is_a_fact_of_the_command(given: Given) -> None:
    command = echo("1.0.0", parent="base@7.0.0")
    given(DECIDER, [REGISTERED]).when(command).refused(ParentMissing, code="invalid")
    known = replace(command, known_parents=frozenset({"base@7.0.0"}))
    given(DECIDER, [REGISTERED]).when(known).then(
        [VersionRegistered(version="1.0.0", runtime="echo", parent="base@7.0.0")]
    )


def test_a_version_is_never_its_own_parent(given: Given) -> None:
    command = echo("1.0.0", parent="fraud@1.0.0")
    given(DECIDER, [REGISTERED]).when(command).refused(LineageCycle, version="fraud@1.0.0")


def test_a_version_is_never_its_own_ancestor(given: Given) -> None:
    command = echo(
        "1.0.0",
        parent="base@7.0.0",
        known_parents=frozenset({"base@7.0.0"}),
        ancestors=("base@6.0.0", "fraud@1.0.0"),
    )
    given(DECIDER, [REGISTERED]).when(command).refused(LineageCycle, version="fraud@1.0.0")


def test_an_alias_moves_and_tells_where_from(given: Given) -> None:
    history: list[Event] = [REGISTERED, V1, V2]
    first = MoveAlias(alias="stable", version="1.0.0")
    moved = given(DECIDER, history).when(first).then([STABLE]).when(first).then([])
    second = MoveAlias(alias="stable", version="2.0.0")
    event = AliasMoved(alias="stable", from_version="1.0.0", to_version="2.0.0")
    assert dict(moved.when(second).then([event]).state.aliases) == {"stable": "2.0.0"}


def test_an_alias_needs_a_version_that_exists(given: Given) -> None:
    command = MoveAlias(alias="stable", version="3.0.0")
    given(DECIDER, [REGISTERED, V1]).when(command).refused(UnknownVersion, version="3.0.0")


def test_an_alias_never_moves_to_a_retired_version(given: Given) -> None:
    history = [REGISTERED, V1, VersionRetired(version="1.0.0")]
    command = MoveAlias(alias="stable", version="1.0.0")
    given(DECIDER, history).when(command).refused(VersionIsRetired, version="1.0.0")


@pytest.mark.parametrize("alias", ["", "a.b", "*", "a" * 65])
def test_a_name_that_no_alias_may_have_is_refused(given: Given, alias: str) -> None:
    command = MoveAlias(alias=alias, version="1.0.0")
    given(DECIDER, [REGISTERED, V1]).when(command).refused(InvalidAlias)


def test_a_model_has_only_so_many_aliases(given: Given) -> None:
    aliases = [AliasMoved(alias=f"a{i}", to_version="1.0.0") for i in range(ALIASES_MAX)]
    full = given(DECIDER, [REGISTERED, V1, V2, *aliases])
    full.when(MoveAlias(alias="more", version="1.0.0")).refused(InvalidAlias)
    full.when(MoveAlias(alias="a0", version="2.0.0")).then(
        [AliasMoved(alias="a0", from_version="1.0.0", to_version="2.0.0")]
    )


def test_a_version_is_retired_once_and_cannot_be_used_after(given: Given) -> None:
    retire = RetireVersion(version="1.0.0", routed_by=NOT_ROUTED)
    history = given(DECIDER, [REGISTERED, V1, V2])
    assert history.state.usable == {"1.0.0", "2.0.0"}
    history = history.when(retire).then([VersionRetired(version="1.0.0")])
    assert history.state.usable == {"2.0.0"}
    history.when(replace(retire, routed_by=frozenset({"chat"}))).then([])


def test_a_version_that_endpoints_need_is_not_retired(given: Given) -> None:
    endpoints = frozenset({"chat", "mail"})
    command = RetireVersion(version="1.0.0", routed_by=endpoints)
    given(DECIDER, [REGISTERED, V1]).when(command).refused(
        VersionRouted, version="1.0.0", endpoints=endpoints, code="conflict"
    )


def test_a_version_with_an_alias_is_not_retired_until_the_alias_moves(given: Given) -> None:
    command = RetireVersion(version="1.0.0", routed_by=NOT_ROUTED)
    history = given(DECIDER, [REGISTERED, V1, V2, STABLE])
    history = history.when(command).refused(VersionAliased, aliases=frozenset({"stable"}))
    moved = AliasMoved(alias="stable", from_version="1.0.0", to_version="2.0.0")
    history = history.when(MoveAlias(alias="stable", version="2.0.0")).then([moved])
    history.when(command).then([VersionRetired(version="1.0.0")])


def test_a_version_that_never_was_cannot_be_retired(given: Given) -> None:
    command = RetireVersion(version="3.0.0", routed_by=NOT_ROUTED)
    given(DECIDER, [REGISTERED, V1]).when(command).refused(UnknownVersion, code="not_found")

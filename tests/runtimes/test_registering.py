"""Language versions as they are registered: what was released, and what goes together."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from engine.decisions.registration import version_problems
from engine.runtimes.language.builtin import BUILTIN, builtin_artifact
from events.catalogue.models import Artifact, VersionRegistered
from handlers.http.problems import Rejected
from handlers.http.versions import ArtifactBody, _artifact

FACTS = builtin_artifact("facts-2")


def problems(artifact: Artifact | None = FACTS, **config: Any) -> set[str]:
    version = VersionRegistered(
        version="1.0.0", runtime="language-model", config=config, artifact=artifact
    )
    return set(version_problems(version))


@pytest.mark.parametrize("name", BUILTIN)
def test_a_built_in_model_is_registered_by_its_name_alone(name: str) -> None:
    artifact = _artifact(ArtifactBody(uri=f"builtin://{name}"))

    assert artifact == builtin_artifact(name)
    assert problems(artifact) == set()


def test_what_differs_from_what_was_released_is_refused() -> None:
    assert problems(msgspec.structs.replace(FACTS, sha256="0" * 64)) == {"artifact.sha256"}
    assert problems(msgspec.structs.replace(FACTS, size_bytes=1)) == {"artifact.size_bytes"}


@pytest.mark.parametrize("uri", ["builtin://facts-9", "builtin://"])
def test_a_built_in_model_that_there_is_not_is_named_with_those_that_there_are(uri: str) -> None:
    with pytest.raises(Rejected, match="facts-1, facts-2, facts-3") as caught:
        _artifact(ArtifactBody(uri=uri))
    assert caught.value.fields is not None
    assert set(caught.value.fields) == {"artifact.uri"}


def test_of_other_artifacts_digest_and_size_are_to_be_told() -> None:
    uri = "file:///srv/model"
    for body in (ArtifactBody(uri=uri), ArtifactBody(uri=uri, sha256="0" * 64)):
        with pytest.raises(Rejected) as caught:
            _artifact(body)
        missing = "sha256" if body.sha256 is None else "size_bytes"
        assert caught.value.fields == {f"artifact.{missing}": "is missing"}


@pytest.mark.parametrize(
    ("config", "fields"),
    [
        ({}, set()),
        ({"rehearsal": {"failing_steps": 2, "failing_text": "x", "step_ms": 1.5}}, set()),
        ({"batch_max": 0}, {"config.batch_max"}),
        ({"batch_max": 2_000}, {"config.batch_max"}),
        ({"kv_bytes": 1}, {"config.kv_bytes"}),
        ({"temperature": 3}, {"config.temperature"}),
        ({"ageing_seconds": 0}, {"config.ageing_seconds"}),
        ({"rehearsal": {"failing_steps": -1}}, {"config.rehearsal"}),
        ({"rehearsal": {"failing": 1}}, {"config.rehearsal"}),
        ({"batches": 1}, {"config.batches"}),
        ({"batch_max": 0, "waiting_max": 0}, {"config.batch_max", "config.waiting_max"}),
        ({"batch_max": 64, "step_tokens_max": 32}, {"config.step_tokens_max"}),
    ],
    ids=repr,
)
def test_a_configuration_is_checked_when_it_is_registered(
    config: dict[str, Any], fields: set[str]
) -> None:
    assert problems(**config) == fields


def test_a_language_model_needs_an_artifact() -> None:
    assert problems(None) == {"artifact"}

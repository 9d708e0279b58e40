"""Model directories: those that come along, and those that are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from engine.runtimes.artifacts import ArtifactDiffers, describe_artifact
from engine.runtimes.language.builtin import (
    BUILTIN,
    BuiltinUnknown,
    builtin_artifact,
    builtin_directory,
)
from engine.runtimes.language.weights import ModelRefused, load_builtin, load_model, save_model
from tests.language.models import TINY, random_parameters

REPOSITORY_BYTES_MAX = 4_000_000


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A copy of the smallest built-in model."""
    return Path(shutil.copytree(builtin_directory("facts-1"), tmp_path / "model"))


@pytest.mark.parametrize("name", BUILTIN)
def test_a_built_in_model_has_its_digest_and_its_parent(name: str) -> None:
    config = load_builtin(name).config

    assert (config.name, config.parent) == (name, BUILTIN[name].parent)
    assert describe_artifact(builtin_directory(name)).sha256 == BUILTIN[name].sha256


def test_the_lineage_goes_from_the_first_to_the_last() -> None:
    names = list(BUILTIN)

    assert [BUILTIN[name].parent for name in names] == [None, *names[:-1]]


def test_a_version_of_a_built_in_model_is_registered_by_name_and_digest() -> None:
    artifact = builtin_artifact("facts-2")

    assert (artifact.uri, artifact.sha256) == ("builtin://facts-2", BUILTIN["facts-2"].sha256)
    assert 500_000 < artifact.size_bytes < 1_000_000


def test_an_unknown_built_in_model_is_named() -> None:
    with pytest.raises(BuiltinUnknown, match="facts-9"):
        load_builtin("facts-9")


def test_all_models_together_are_small() -> None:
    sizes = [builtin_artifact(name).size_bytes for name in BUILTIN]

    assert sum(sizes) < REPOSITORY_BYTES_MAX


def test_one_changed_bit_is_found_by_the_digest(directory: Path) -> None:
    digest = describe_artifact(directory).sha256
    load_model(directory, sha256=digest)
    weights = directory / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)

    with pytest.raises(ArtifactDiffers):
        load_model(directory, sha256=digest)


def _without(name: str) -> Callable[[Path], None]:
    return lambda directory: (directory / name).unlink()


def _with(name: str, content: bytes) -> Callable[[Path], None]:
    def damage(directory: Path) -> None:
        (directory / name).write_bytes(content)

    return damage


def _cut(directory: Path) -> None:
    weights = directory / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1_000])


def _other_sizes(directory: Path) -> None:
    config = msgspec.json.decode((directory / "config.json").read_bytes())
    (directory / "config.json").write_bytes(msgspec.json.encode(config | {"width": 96}))


def _not_finite(directory: Path) -> None:
    weights = directory / "model.safetensors"
    tensors = safetensors.numpy.load(weights.read_bytes())
    tensors["norm"] = np.full_like(tensors["norm"], np.nan)
    weights.write_bytes(safetensors.numpy.save(tensors))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (_without("config.json"), "config.json: is missing"),
        (_without("tokenizer.json"), "tokenizer.json: is missing"),
        (_without("model.safetensors"), "model.safetensors: is missing"),
        (_with("config.json", b"{"), "config.json: "),
        (_with("config.json", b"\xff\xfe"), "config.json: "),
        (_with("config.json", b"{}"), "config.json: Object missing required field"),
        (_with("tokenizer.json", b'{"merges": [[900, 1]]}'), "tokenizer.json: merge of 900 and 1"),
        (_with("tokenizer.json", b'{"merges": []}'), "tokenizer.json: 259 tokens"),
        (_with("model.safetensors", b""), "model.safetensors: "),
        (_with("model.safetensors", b"\xff" * 4_000), "model.safetensors: "),
        (_cut, "model.safetensors: "),
        (_other_sizes, "model.safetensors: other tensors"),
        (_not_finite, "model.safetensors: numbers that are not finite"),
    ],
)
def test_a_directory_that_holds_no_model_is_refused_with_the_file_that_is_wrong(
    damage: Callable[[Path], None], told: str, directory: Path
) -> None:
    damage(directory)

    with pytest.raises(ModelRefused, match=told.replace("[", r"\[")):
        load_model(directory)


def test_what_is_saved_is_loaded_as_halves(tmp_path: Path) -> None:
    parameters = random_parameters(TINY, seed=2)
    save_model(tmp_path, TINY, (), parameters)

    loaded = load_model(tmp_path)

    assert loaded.config == TINY
    for name, array in parameters.items():
        np.testing.assert_array_equal(loaded.parameters[name], array.astype(np.float16))

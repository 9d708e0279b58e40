"""The demo's classifier: deterministic, its versions as good and as bad as they are meant to be."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.runtimes import RuntimeFailed, RuntimeSettings, create_runtime, describe_artifact
from events.catalogue.models import VersionRegistered
from switchback.demo.digits import FACTORY, Versions, load_digits, same_label, train_all
from switchback.demo.digits.centring import centred


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> Versions:
    return train_all(load_digits(), tmp_path_factory.mktemp("versions"))


def factory_in(directory: Path) -> Callable[[Path], Any]:
    """The factory of an artifact, imported from the artifact as the python runtime does."""
    module_name, _, name = FACTORY.partition(":")
    spec = importlib.util.spec_from_file_location(module_name, directory / f"{module_name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    factory: Callable[[Path], Any] = getattr(module, name)
    return factory


def test_the_data_set_is_complete_and_split_without_overlap() -> None:
    digits = load_digits()
    assert digits.training.pixels.shape == (1297, 64)
    assert digits.held_out.pixels.shape == (500, 64)
    assert (digits.training.pixels.min(), digits.training.pixels.max()) == (0, 16)
    assert set(digits.held_out.labels.tolist()) == set(range(10))
    seen = {row.tobytes() for row in digits.training.pixels}
    assert not any(row.tobytes() in seen for row in digits.held_out.pixels)


def test_training_twice_gives_the_same_bytes(tmp_path: Path, versions: Versions) -> None:
    for first, second in zip(versions, train_all(load_digits(), tmp_path), strict=True):
        names = {path.name for path in first.directory.iterdir()}
        assert names - {"centring.py"} == {"classifier.py", "weights.npz"}
        assert ("centring.py" in names) == (first.factory != FACTORY)
        for name in names:
            assert (second.directory / name).read_bytes() == (first.directory / name).read_bytes()


def test_another_seed_gives_another_model(tmp_path: Path, versions: Versions) -> None:
    other = train_all(load_digits(), tmp_path, seed=8)[0]
    weights = [version.directory / "weights.npz" for version in (other, versions[0])]
    assert weights[0].read_bytes() != weights[1].read_bytes()


def test_the_child_beats_its_parent_and_the_worse_one_is_much_worse(versions: Versions) -> None:
    parent, child, worse, failing = (version.accuracy for version in versions)
    assert 0.90 < parent < child - 0.02
    assert child > 0.96
    assert worse < parent - 0.3
    assert failing > 0.96  # where it answers, it is as good as any


def test_the_artifact_alone_answers_with_the_accuracy_that_was_measured(
    versions: Versions,
) -> None:
    held_out = load_digits().held_out
    for version in versions[:3]:
        model = factory_in(version.directory)(version.directory)
        answers = model.predict(held_out.pixels.tolist(), {})
        right = [a["label"] == label for a, label in zip(answers, held_out.labels, strict=True)]
        assert sum(right) / len(right) == version.accuracy


def test_centring_moves_a_digit_and_fails_on_one_that_touches_the_right_border() -> None:
    image = np.zeros((8, 8), dtype=int)
    image[2:6, 0:2] = 9
    moved = centred(image.reshape(-1)).reshape(8, 8)
    assert np.flatnonzero(moved.any(axis=0)).tolist() == [3, 4]
    assert (centred(moved.reshape(-1)).reshape(8, 8) == moved).all()
    image[2:6, 0:8] = 9
    with pytest.raises(IndexError):
        centred(image.reshape(-1))


def test_two_answers_agree_when_their_labels_do() -> None:
    assert same_label({"label": 7, "scores": [0.9]}, {"label": 7, "scores": [0.4]})
    assert not same_label({"label": 7, "scores": [0.9]}, {"label": 1, "scores": [0.9]})


def test_one_image_gets_one_answer_the_same_as_in_a_list(versions: Versions) -> None:
    model = factory_in(versions[1].directory)(versions[1].directory)
    image = load_digits().held_out.pixels[0].tolist()
    answer = model.predict(image, {})
    assert model.predict([image], {}) == [answer]
    assert answer["scores"][answer["label"]] == max(answer["scores"])
    assert sum(answer["scores"]) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "inputs",
    [None, 7, [], "seven", [0] * 63, [0] * 63 + [17], [0] * 63 + [float("nan")], [[0] * 64, [0]]],
    ids=["none", "number", "empty", "text", "short", "too dark", "not a number", "ragged"],
)
def test_anything_but_images_is_refused_with_the_reason(versions: Versions, inputs: Any) -> None:
    model = factory_in(versions[0].directory)(versions[0].directory)
    with pytest.raises(ValueError, match="expected 64 pixels from 0 to 16"):
        model.predict(inputs, {})


@pytest.mark.slow
async def test_the_failing_version_loads_and_fails_on_some_images_alone(
    versions: Versions,
) -> None:
    failing, held_out = versions[3], load_digits().held_out
    registered = VersionRegistered(
        version=failing.version,
        runtime="python",
        config={"factory": failing.factory},
        artifact=describe_artifact(failing.directory),
    )
    roots = (failing.directory.parent,)
    runtime = create_runtime(registered, RuntimeSettings(artifact_roots=roots, python_enabled=True))
    right = failed = 0
    try:
        await runtime.load()
        await runtime.warm()
        for image, label in zip(held_out.pixels.tolist(), held_out.labels.tolist(), strict=True):
            try:
                answer = await runtime.infer(image, {})
            except RuntimeFailed as failure:
                assert "index out of range" in failure.detail
                failed += 1
            else:
                right += answer["label"] == label
    finally:
        await runtime.close()
    answered = len(held_out.labels) - failed
    assert 0.05 < failed / len(held_out.labels) < 0.2
    assert right / answered == failing.accuracy


@pytest.mark.slow
async def test_a_node_loads_the_artifact_and_it_answers_from_a_process_of_its_own(
    versions: Versions,
) -> None:
    version = versions[1]
    registered = VersionRegistered(
        version=version.version,
        runtime="python",
        config={"factory": FACTORY},
        artifact=describe_artifact(version.directory),
    )
    roots = (version.directory.parent,)
    runtime = create_runtime(registered, RuntimeSettings(artifact_roots=roots, python_enabled=True))
    try:
        await runtime.load()
        await runtime.warm()
        images = load_digits().held_out.pixels[:20].tolist()
        expected = factory_in(version.directory)(version.directory).predict(images, {})
        assert await runtime.infer(images, {}) == expected
        with pytest.raises(RuntimeFailed, match="expected 64 pixels"):
            await runtime.infer("seven", {})
    finally:
        await runtime.close()


def test_the_artifact_needs_nothing_of_this_project(versions: Versions) -> None:
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import classifier;"
        "model = classifier.load(sys.argv[1]); print(model.predict([0] * 64, {})['label']);"
        "assert not [name for name in sys.modules if name.startswith('switchback')]"
    )
    command = [sys.executable, "-I", "-B", "-c", program, str(versions[0].directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().isdigit()

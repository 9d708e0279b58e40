"""Artifacts: where they may lie, and that not one byte of them may differ."""

from __future__ import annotations

import contextlib
import os
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.runtimes import (
    ArtifactDiffers,
    ArtifactMissing,
    ArtifactOutsideRoots,
    ArtifactRefused,
    ArtifactUnfit,
    ArtifactUriInvalid,
    describe_artifact,
    resolve_artifact,
    verify_artifact,
)

COREUTILS = (
    r"find . -name __pycache__ -prune -o -type f -printf '%P\n'"
    r" | LC_ALL=C sort | xargs -d '\n' sha256sum | sha256sum"
)


@pytest.fixture
def model(root: Path) -> Path:
    """A directory with some files in it."""
    path = root / "model"
    (path / "deep" / "er").mkdir(parents=True)
    for name in ("b.txt", "a.txt", "deep/er/c.bin", "deep.txt", "a file", "ü", "Z"):
        (path / name).write_bytes(name.encode() * 3)
    return path


# -------------------------------------------------------------------------------------- Places


def test_a_path_under_a_root_is_allowed(root: Path, model: Path) -> None:
    assert resolve_artifact(f"file://{model}", [root]) == model
    assert resolve_artifact(f"file://{root}/not/there/yet", [root]) == root / "not/there/yet"
    assert resolve_artifact(f"file://{root}/a%20file", [root]) == root / "a file"


def test_one_of_several_roots_is_enough(root: Path, model: Path, tmp_path: Path) -> None:
    assert resolve_artifact(f"file://{model}", [tmp_path / "other", root]) == model


@pytest.mark.parametrize("path", ["/etc/passwd", "{root}/../x", "{root}/%2e%2e/x", "{root}x", "/"])
def test_a_path_outside_the_roots_is_refused(root: Path, path: str) -> None:
    with pytest.raises(ArtifactOutsideRoots):
        resolve_artifact("file://" + path.format(root=root), [root])


def test_a_link_out_of_the_root_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    for uri in (f"file://{root}/link", f"file://{root}/link/file"):
        with pytest.raises(ArtifactOutsideRoots) as caught:
            resolve_artifact(uri, [root])
        assert "secret" not in str(caught.value)


def test_a_root_that_is_a_link_itself_is_fine(root: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    assert resolve_artifact(f"file://{tmp_path}/alias/model", [tmp_path / "alias"]) == model


def test_without_roots_nothing_is_allowed(model: Path) -> None:
    with pytest.raises(ArtifactOutsideRoots):
        resolve_artifact(f"file://{model}", [])


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "/plain/path",
        "file:relative",
        "file://host/path",
        "http:///path",
        "builtin:facts-1",
        "file:///a%00b",
        "file:///a?query",
        "file:///a#fragment",
        "file:///%ff",
        "file://[/path",
        "file:///" + "a" * 5_000,
    ],
)
def test_what_is_no_plain_file_uri_is_refused(root: Path, uri: str) -> None:
    with pytest.raises(ArtifactUriInvalid):
        resolve_artifact(uri, [root])


def test_a_link_that_points_to_itself_is_refused(root: Path) -> None:
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises(ArtifactRefused):
        resolve_artifact(f"file://{root}/loop/x", [root])


@given(st.text(max_size=100))
def test_no_text_leads_out_of_the_roots(path: str) -> None:
    root = Path("/srv/artifacts")
    with contextlib.suppress(ArtifactRefused):
        assert resolve_artifact("file:///srv/artifacts/" + path, [root]).is_relative_to(root)


# ------------------------------------------------------------------------------------- Digests


def test_a_directorys_digest_is_what_coreutils_say(model: Path) -> None:
    (model / "__pycache__").mkdir()
    (model / "__pycache__" / "x.pyc").write_bytes(b"x")
    theirs = subprocess.run(COREUTILS, shell=True, cwd=model, capture_output=True, check=True)
    described = describe_artifact(model)
    assert described.sha256 == theirs.stdout.decode().split()[0]
    assert described.size_bytes == sum(
        p.stat().st_size for p in model.rglob("*[!c]") if p.is_file()
    )


def test_a_files_digest_is_its_own(model: Path) -> None:
    described = describe_artifact(model / "a.txt")
    assert described.sha256 == sha256(b"a.txt" * 3).hexdigest()
    assert described.size_bytes == 15


def test_what_was_described_verifies(root: Path, model: Path) -> None:
    for path in (model, model / "a file"):
        assert verify_artifact(describe_artifact(path), [root]) == path


def test_a_digest_in_capitals_verifies(root: Path, model: Path) -> None:
    described = describe_artifact(model)
    verify_artifact(replace(described, sha256=described.sha256.upper()), [root])


def change_a_byte(model: Path) -> None:
    (model / "a.txt").write_bytes(b"A.txt" * 3)


def add_an_empty_file(model: Path) -> None:
    (model / "new").touch()


def remove_a_file_and_keep_the_size(model: Path) -> None:
    (model / "a.txt").unlink()
    (model / "b.txt").write_bytes(b"a.txt" * 6)


def rename_a_file(model: Path) -> None:
    (model / "a.txt").rename(model / "c.txt")


def swap_two_files(model: Path) -> None:
    (model / "a.txt").rename(model / "t")
    (model / "b.txt").rename(model / "a.txt")
    (model / "t").rename(model / "b.txt")


@pytest.mark.parametrize(
    "change",
    [
        change_a_byte,
        add_an_empty_file,
        remove_a_file_and_keep_the_size,
        rename_a_file,
        swap_two_files,
    ],
    ids=lambda change: change.__name__,
)
def test_any_change_is_found(root: Path, model: Path, change: object) -> None:
    described = describe_artifact(model)
    assert callable(change)
    change(model)
    with pytest.raises(ArtifactDiffers):
        verify_artifact(described, [root])


def test_a_wrong_size_is_found(root: Path, model: Path) -> None:
    described = describe_artifact(model)
    with pytest.raises(ArtifactDiffers, match="bytes"):
        verify_artifact(replace(described, size_bytes=described.size_bytes + 1), [root])


def test_an_artifact_that_is_not_there_is_missing(root: Path) -> None:
    with pytest.raises(ArtifactMissing):
        describe_artifact(root / "nothing")


def link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def pipe(path: Path) -> None:
    os.mkfifo(path)


def odd_name(path: Path) -> None:
    path.with_name("a\nb").touch()


def undecodable_name(path: Path) -> None:
    path.with_name(os.fsdecode(b"\xff")).touch()


@pytest.mark.parametrize(
    "make", [link, pipe, odd_name, undecodable_name], ids=lambda make: make.__name__
)
def test_what_no_digest_speaks_for_is_refused(model: Path, make: object) -> None:
    assert callable(make)
    make(model / "odd")
    with pytest.raises(ArtifactUnfit):
        describe_artifact(model)


@pytest.mark.slow
def test_many_folders_inside_each_other_are_fine(root: Path) -> None:
    top = root / "d"
    subprocess.run(["mkdir", "-p", str(top) + "/d" * 1_010], check=True)
    try:
        assert describe_artifact(top).sha256 == sha256().hexdigest()
    finally:
        subprocess.run(["rm", "-rf", str(top)], check=True)

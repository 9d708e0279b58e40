"""Artifacts: files of versions under configured folders, known by digest and size.

The digest of a file is its SHA-256. The digest of a directory is the SHA-256 of the text that has
for each file one line `<hex SHA-256>  <path>\\n`, paths relative with `/`, in the order of their
UTF-8 bytes: what this prints, run inside the directory:

    find . -name __pycache__ -prune -o -type f -printf '%P\\n' \\
        | LC_ALL=C sort | xargs -d '\\n' sha256sum | sha256sum

Empty directories and `__pycache__` do not count (python versions run without reading it). Links,
devices and names with control characters or backslashes are refused: no digest could speak for
them.

A digest tells what the files were when it was taken. Keep artifact folders writable for deployers
only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from hashlib import file_digest, sha256
from io import BufferedReader
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from engine.runtimes.language.builtin import SCHEME, BuiltinUnknown, builtin_directory
from events.catalogue.models import Artifact

ARTIFACT_FILES_MAX: Final = 100_000
READ_BYTES_MAX: Final = 2**30
"""Of a file that is kept in memory."""
_URI_CHARS_MAX: Final = 4_096
_IGNORED: Final = "__pycache__"


class ArtifactRefused(Exception):
    """The root of everything that can be wrong with an artifact."""


class ArtifactUriInvalid(ArtifactRefused):
    """Not a `file:///` URI of an absolute path."""


class ArtifactOutsideRoots(ArtifactRefused):
    """The path, links and `..` resolved, is in none of the configured folders."""


class ArtifactMissing(ArtifactRefused):
    """There is nothing at the path, or it cannot be read."""


class ArtifactUnfit(ArtifactRefused):
    """The directory holds what cannot be digested: links, devices, odd names, too many files."""


class ArtifactDiffers(ArtifactRefused):
    """The files are not those that were registered."""


def resolve_artifact(uri: str, roots: Sequence[Path]) -> Path:
    """The path behind a `file:///` URI, with links and `..` resolved, which need not exist; or that
    of a built-in model, wherever it is.

    Raises ArtifactUriInvalid, ArtifactOutsideRoots, ArtifactMissing. Error texts repeat the URI and
    tell no path that it resolves to.
    """
    if uri.startswith(SCHEME):
        try:
            return builtin_directory(uri.removeprefix(SCHEME))
        except BuiltinUnknown as error:
            raise ArtifactMissing(str(error)) from error
    shown = uri[:200]
    try:
        path = Path(_path_of(uri)).resolve()
        allowed = any(path.is_relative_to(root.resolve()) for root in roots)
    except (OSError, ValueError, RuntimeError) as error:
        raise ArtifactUriInvalid(f"{shown!r} is not a file:/// URI of an absolute path") from error
    if not allowed:
        raise ArtifactOutsideRoots(f"{shown!r} is in none of the artifact folders")
    return path


def describe_artifact(path: Path) -> Artifact:
    """The artifact of a file or directory as it is now; reads it all. Raises ArtifactRefused."""
    path = path.resolve()
    files = _files(path)
    return Artifact(
        uri=path.as_uri(),
        sha256=_digest(path, files),
        size_bytes=sum(size for _, size in files),
    )


def verify_artifact(artifact: Artifact, roots: Sequence[Path]) -> Path:
    """The artifact's path, once size and digest are found right. Raises ArtifactRefused.

    Reads every byte: run it in a thread.
    """
    path = resolve_artifact(artifact.uri, roots)
    files = _files(path)
    size_bytes = sum(size for _, size in files)
    if size_bytes != artifact.size_bytes:
        raise ArtifactDiffers(f"{size_bytes} bytes, registered were {artifact.size_bytes}")
    digest = _digest(path, files)
    if digest != artifact.sha256.lower():
        raise ArtifactDiffers(f"SHA-256 {digest}, registered was {artifact.sha256[:64]}")
    return path


def read_artifact(path: Path, *, kept: Collection[str]) -> tuple[str, dict[str, bytes]]:
    """The digest of a directory, and what the files in it are whose names are in `kept`: the very
    bytes that the digest was taken of, whoever may write there meanwhile. Raises ArtifactRefused.
    """
    lines = sha256()
    files: dict[str, bytes] = {}
    try:
        for name, size in _files(path):
            if name not in kept:
                digest = _file_digest(path / name)
            elif size > READ_BYTES_MAX:
                raise ArtifactUnfit(f"{name}: more than {READ_BYTES_MAX} bytes")
            else:
                with _opened(path / name) as file:
                    files[name] = file.read(READ_BYTES_MAX)
                digest = sha256(files[name]).hexdigest()
            lines.update(f"{digest}  {name}\n".encode())
    except OSError as error:
        raise ArtifactMissing(error.strerror or "cannot be read") from error
    return lines.hexdigest(), files


def _path_of(uri: str) -> str:
    if len(uri) > _URI_CHARS_MAX:
        raise ValueError("too long")
    parts = urlsplit(uri)
    path = unquote(parts.path, errors="strict")
    if parts.scheme != "file" or parts.netloc or parts.query or parts.fragment:
        raise ValueError("not a plain file:///")
    if not path.startswith("/") or "\0" in path or not uri.startswith("file:///"):
        raise ValueError("not an absolute path")
    return path


def _files(path: Path) -> list[tuple[str, int]]:
    """(relative path, size in bytes) of every file, in digest order; of a file: ("", size)."""
    try:
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            return [("", status.st_size)]
        if not stat.S_ISDIR(status.st_mode):
            raise ArtifactUnfit("neither a file nor a directory")
        files = []
        for file in _walk(path):
            files.append(file)
            if len(files) > ARTIFACT_FILES_MAX:
                raise ArtifactUnfit(f"more than {ARTIFACT_FILES_MAX} files")
    except OSError as error:
        raise ArtifactMissing(error.strerror or "cannot be read") from error
    return sorted(files, key=lambda file: os.fsencode(file[0]))


def _walk(top: Path) -> Iterator[tuple[str, int]]:
    open_directories = [(str(top), "")]
    while open_directories:
        directory, prefix = open_directories.pop()
        with os.scandir(directory) as entries:
            for entry in entries:
                name = prefix + _fit(entry.name)
                if entry.is_dir(follow_symlinks=False):
                    if entry.name != _IGNORED:
                        open_directories.append((entry.path, name + "/"))
                elif entry.is_file(follow_symlinks=False):
                    yield name, entry.stat(follow_symlinks=False).st_size
                else:
                    raise ArtifactUnfit(f"{name!r} is a link or a device")


def _fit(name: str) -> str:
    if not name.isprintable() or "\\" in name:
        raise ArtifactUnfit(f"{name!r} has characters that are not allowed in names")
    return name


def _digest(path: Path, files: list[tuple[str, int]]) -> str:
    try:
        if files and files[0][0] == "":
            return _file_digest(path)
        lines = sha256()
        for name, _ in files:
            lines.update(f"{_file_digest(path / name)}  {name}\n".encode())
    except OSError as error:
        raise ArtifactMissing(error.strerror or "cannot be read") from error
    return lines.hexdigest()


def _file_digest(path: Path) -> str:
    with _opened(path) as file:
        return file_digest(file, "sha256").hexdigest()


def _opened(path: Path) -> BufferedReader:
    # Not through a link, should one have taken the file's place since it was listed.
    return os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb")

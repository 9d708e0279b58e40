"""Artifacts on the command line: named, measured, refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest

from engine.runtimes import describe_artifact
from engine.runtimes.language.builtin import BUILTIN
from switchback.client import Client
from tests.cli.running import Ended, Up, inside


@pytest.fixture(scope="module")
def kept(up: Up) -> Up:
    assert inside("models", "register", "kept", "--data-dir", up.data_dir).code == 0
    return up


def _register(up: Up, version: str, runtime: str, artifact: object, *more: object) -> Ended:
    return inside(
        *("versions", "register", "kept", version, "--runtime", runtime),
        *("--artifact", artifact, *more, "--data-dir", up.data_dir),
    )


def _registered(up: Up, version: str) -> dict[str, Any]:
    async def ask() -> Any:
        async with Client.from_data_dir(up.data_dir) as client:
            return (await client.version("kept", version))["artifact"]

    return asyncio.run(ask())


def test_a_built_in_model_is_registered_by_its_name(kept: Up) -> None:
    ended = _register(kept, "1.0.0", "language-model", "builtin://facts-2")
    assert ended.code == 0, ended.err
    artifact = _registered(kept, "1.0.0")
    assert (artifact["uri"], artifact["sha256"]) == ("builtin://facts-2", BUILTIN["facts-2"].sha256)


def test_a_directory_is_measured_when_it_is_registered(kept: Up) -> None:
    directory = kept.data_dir / "artifacts" / "guess"
    directory.mkdir(parents=True)
    (directory / "guess.py").write_text(
        "def load(path):\n    return lambda inputs, parameters: 7\n"
    )
    factory = ("--config", '{"factory": "guess:load"}')
    ended = _register(kept, "2.0.0", "python", directory, *factory)
    assert ended.code == 0, ended.err
    described = describe_artifact(directory)
    artifact = _registered(kept, "2.0.0")
    assert artifact == {
        "uri": described.uri,
        "sha256": described.sha256,
        "size_bytes": described.size_bytes,
    }


@pytest.mark.parametrize(
    ("artifact", "said"),
    [
        ("builtin://facts-9", "facts-9"),
        ("no/such/directory", "no/such/directory"),
        ("{", "--artifact"),
        ("@no/such/file", "--artifact"),
    ],
)
def test_what_is_no_artifact_is_refused_by_name(kept: Up, artifact: str, said: str) -> None:
    ended = _register(kept, "3.0.0", "language-model", artifact)
    assert ended.code == 1
    assert said in ended.err


def test_a_verb_imports_nothing_that_only_servers_need() -> None:
    said = "import sys, switchback.cli.verbs, switchback.cli.models; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert {"numpy", "aiohttp", "litestar", "asyncpg", "nats"}.isdisjoint(ran.stdout.split())

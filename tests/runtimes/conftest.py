"""Artifacts of python versions, on disk, and runtimes that are closed at the end."""

from __future__ import annotations

import textwrap
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from engine.runtimes import Runtime, RuntimeSettings, create_runtime, describe_artifact
from events.catalogue.models import VersionRegistered

MakeVersion = Callable[..., VersionRegistered]
Start = Callable[[VersionRegistered], Runtime]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "artifacts"
    path.mkdir()
    return path


@pytest.fixture
def settings(root: Path) -> RuntimeSettings:
    return RuntimeSettings(
        artifact_roots=(root,),
        python_enabled=True,
        python_memory_bytes_max=512 * 2**20,
        python_files_max=64,
        python_file_bytes_max=2**20,
        python_frame_bytes_max=2**20,
        python_close_seconds=0.5,
    )


@pytest.fixture
def python_version(root: Path) -> MakeVersion:
    """Registers a python version whose `model.make` is in the given source."""

    def make(source: str, *, name: str = "version", **config: Any) -> VersionRegistered:
        directory = root / name
        directory.mkdir(exist_ok=True)
        (directory / "model.py").write_text(textwrap.dedent(source))
        return VersionRegistered(
            version="1.0.0",
            runtime="python",
            config={"factory": "model:make"} | config,
            artifact=describe_artifact(directory),
        )

    return make


@pytest_asyncio.fixture
async def start(settings: RuntimeSettings) -> AsyncIterator[Start]:
    """Makes runtimes, not loaded, and closes them."""
    started: list[Runtime] = []

    def start(registered: VersionRegistered) -> Runtime:
        runtime = create_runtime(registered, settings)
        started.append(runtime)
        return runtime

    yield start
    for runtime in started:
        await runtime.close()

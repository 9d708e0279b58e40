"""Artifacts of runtimes that load a directory: found, and found to be what was registered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from engine.runtimes.artifacts import ArtifactDiffers, ArtifactRefused, verify_artifact
from engine.runtimes.runtime import LoadFailed
from events.catalogue.models import Artifact


async def verified_directory(artifact: Artifact, roots: Sequence[Path]) -> Path:
    """The artifact's directory, in a folder that artifacts may come from. Raises LoadFailed."""
    try:
        path = await asyncio.to_thread(verify_artifact, artifact, roots)
    except ArtifactDiffers as error:
        raise LoadFailed("digest", str(error)) from error
    except ArtifactRefused as error:
        raise LoadFailed("artifact", str(error)) from error
    if not path.is_dir():
        raise LoadFailed("artifact", "the artifact of such a version is a directory")
    return path

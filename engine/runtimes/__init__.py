"""What executes versions on a node: runtimes, artifacts, and what is resident. Never the log."""

from engine.runtimes.artifacts import (
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
from engine.runtimes.registry import RUNTIMES, available_runtimes, create_runtime
from engine.runtimes.residency import Loaded, NotResident, Residency, UnloadReason
from engine.runtimes.runtime import LoadFailed, Runtime, RuntimeFailed, RuntimeSettings

__all__ = [
    "RUNTIMES",
    "ArtifactDiffers",
    "ArtifactMissing",
    "ArtifactOutsideRoots",
    "ArtifactRefused",
    "ArtifactUnfit",
    "ArtifactUriInvalid",
    "LoadFailed",
    "Loaded",
    "NotResident",
    "Residency",
    "Runtime",
    "RuntimeFailed",
    "RuntimeSettings",
    "UnloadReason",
    "available_runtimes",
    "create_runtime",
    "describe_artifact",
    "resolve_artifact",
    "verify_artifact",
]

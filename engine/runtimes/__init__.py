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
from engine.runtimes.runtime import (
    Batching,
    LoadFailed,
    RequestRefused,
    RequestTimedOut,
    Runtime,
    RuntimeFailed,
    RuntimeSettings,
    Streaming,
    VersionOverloaded,
    VersionTimedOut,
    VersionUnavailable,
)

__all__ = [
    "RUNTIMES",
    "ArtifactDiffers",
    "ArtifactMissing",
    "ArtifactOutsideRoots",
    "ArtifactRefused",
    "ArtifactUnfit",
    "ArtifactUriInvalid",
    "Batching",
    "LoadFailed",
    "Loaded",
    "NotResident",
    "RequestRefused",
    "RequestTimedOut",
    "Residency",
    "Runtime",
    "RuntimeFailed",
    "RuntimeSettings",
    "Streaming",
    "UnloadReason",
    "VersionOverloaded",
    "VersionTimedOut",
    "VersionUnavailable",
    "available_runtimes",
    "create_runtime",
    "describe_artifact",
    "resolve_artifact",
    "verify_artifact",
]

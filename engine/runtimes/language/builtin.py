"""The models that come with the program: where they lie, and what their bytes have to be.

Made by `engine.runtimes.language.training`; what they can do is told in `models/README.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from events.catalogue.models import Artifact

SCHEME: Final = "builtin://"
_MODELS: Final = Path(__file__).parent / "models"


class BuiltinUnknown(LookupError):
    """There is no such built-in model."""

    def __init__(self, name: str) -> None:
        super().__init__(f"no built-in model {name[:64]!r}; there are {', '.join(BUILTIN)}")
        self.name = name


class BuiltinModel(msgspec.Struct, frozen=True, kw_only=True):
    """One directory under `models`, as it was released."""

    sha256: str
    """As `engine.runtimes.artifacts` takes it."""
    size_bytes: int
    parent: str | None


BUILTIN: Final[Mapping[str, BuiltinModel]] = MappingProxyType(
    {
        "facts-1": BuiltinModel(
            sha256="c68dceb2e1500ca606206e037c4b892b548a6c3537738aec03e98154e96a287e",
            size_bytes=159_400,
            parent=None,
        ),
        "facts-2": BuiltinModel(
            sha256="27a9425e4ec1f9257aea2a03aea9771527cce57140006161b9f83978195ab4fb",
            size_bytes=824_396,
            parent="facts-1",
        ),
        "facts-3": BuiltinModel(
            sha256="fb001492acfcfcfe8813fa92a6f42adc12f8ed24e0d5dc471d2c75847be8c8a0",
            size_bytes=824_433,
            parent="facts-2",
        ),
    }
)
"""Parents first."""


def builtin_directory(name: str) -> Path:
    """Raises BuiltinUnknown."""
    if name not in BUILTIN:
        raise BuiltinUnknown(name)
    return _MODELS / name


def builtin_artifact(name: str) -> Artifact:
    """What a version of it is registered with. Raises BuiltinUnknown."""
    if name not in BUILTIN:
        raise BuiltinUnknown(name)
    released = BUILTIN[name]
    return Artifact(uri=SCHEME + name, sha256=released.sha256, size_bytes=released.size_bytes)

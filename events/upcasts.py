"""Old event types, and how their data reads today.

An upcast takes the `data` of an old type and gives the type and data of its successor; chains are
followed until a current type is reached. Upcasts are total, never look at another event, and are
never removed: the log keeps every event for ever. tests/events/golden/ holds one message of every
type ever written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Final, TypeAlias

Data: TypeAlias = dict[str, Any]
Upcast: TypeAlias = Callable[[Data], tuple[str, Data]]


def _version_registered_v1(data: Data) -> tuple[str, Data]:
    """v1 kept `uri`, `digest` (`sha256:<hex>`) and `size_bytes` beside the version's own fields."""
    uri = data.pop("uri", None)
    digest = data.pop("digest", None)
    size_bytes = data.pop("size_bytes", 0)
    if uri is not None:
        sha256 = str(digest or "").removeprefix("sha256:")
        data["artifact"] = {"uri": uri, "sha256": sha256, "size_bytes": size_bytes}
    return "switchback.model.version_registered.v2", data


UPCASTS: Final[Mapping[str, Upcast]] = MappingProxyType(
    {"switchback.model.version_registered.v1": _version_registered_v1}
)

"""Maps inside states: a changed copy costs about as much as one lookup, however large the map is.

States are immutable, so every event copies what it changes. A dict would make folding a history of
n keys take n² steps; a persistent map shares all that stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from rpds import HashTrieMap

Key = TypeVar("Key")
Value = TypeVar("Value")

EMPTY: Final[Mapping[Any, Any]] = HashTrieMap()


def with_entry(entries: Mapping[Key, Value], key: Key, value: Value) -> Mapping[Key, Value]:
    """A copy in which `key` has `value`. The first change of a plain dict copies all of it."""
    return HashTrieMap.convert(entries).insert(key, value)


def without_entry(entries: Mapping[Key, Value], key: Key) -> Mapping[Key, Value]:
    """A copy without `key`, which may be missing."""
    return HashTrieMap.convert(entries).discard(key)

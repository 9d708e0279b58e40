"""Comparing two outputs, made of what msgpack can hold, the way a policy says.

Alike under every kind: NaN equals NaN; integers and floats are compared as numbers; a boolean is
not a number; a key that only one side has is a disagreement, an order of keys is not. Outputs that
exceed a limit of `engine.agreement.sizes` are compared as bytes of their encoding (with sorted
keys), whatever the kind: then 1 and 1.0 differ, and no tolerance holds. Functions get any size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import isinf
from typing import Any, Final, TypeAlias

import msgspec
from rapidfuzz.distance import Indel

from engine.agreement.errors import ComparisonFailed
from engine.agreement.sizes import is_large
from events.catalogue.endpoints import Comparison

Function: TypeAlias = Callable[[Any, Any], bool]
"""(answer that was returned, shadow's output) -> do they agree?"""
_Number: TypeAlias = int | float
_NUMBERS: Final = frozenset({int, float})
_LISTS: Final = frozenset({list, tuple})
_encode: Final = msgspec.msgpack.Encoder(order="deterministic").encode


def agree(
    primary: Any, shadow: Any, comparison: Comparison, functions: Mapping[str, Function]
) -> bool:
    """Raises ComparisonFailed: outputs that nothing can encode, a name that `functions` does not
    know, a function that raises or returns something else than a bool."""
    if comparison.kind == "function":
        return _asked(comparison.name or "", functions, primary, shadow)
    if _bytes(primary) == _bytes(shadow):
        return True
    if is_large(primary) or is_large(shadow):
        return False
    return _Rules(comparison).hold(primary, shadow)


class _Rules:
    """One comparison, ready to be applied to values."""

    def __init__(self, comparison: Comparison) -> None:
        self._tolerance = comparison.tolerance if comparison.kind == "numeric" else 0.0
        self._similarity = comparison.similarity if comparison.kind == "text" else 1.0

    def hold(self, one: Any, other: Any) -> bool:
        kind, kind_of_other = type(one), type(other)
        if kind in _NUMBERS:
            return kind_of_other in _NUMBERS and self._numbers(one, other)
        if kind in _LISTS:
            return (
                kind_of_other in _LISTS
                and len(one) == len(other)
                and all(map(self.hold, one, other))
            )
        if kind is not kind_of_other:
            return False
        if kind is str:
            return self._texts(one, other)
        if kind is dict:
            return one.keys() == other.keys() and all(
                self.hold(value, other[key]) for key, value in one.items()
            )
        return bool(one == other)

    def _numbers(self, one: _Number, other: _Number) -> bool:
        if one == other or (one != one and other != other):
            return True
        if not self._tolerance or isinf(one) or isinf(other):
            return False
        apart, tolerance = abs(one - other), self._tolerance
        return (
            apart <= tolerance or apart <= tolerance * abs(one) or apart <= tolerance * abs(other)
        )

    def _texts(self, one: str, other: str) -> bool:
        if self._similarity >= 1.0:
            return one == other
        least = self._similarity
        return bool(Indel.normalized_similarity(one, other, score_cutoff=least) >= least)


def _asked(name: str, functions: Mapping[str, Function], primary: Any, shadow: Any) -> bool:
    function = functions.get(name)
    if function is None:
        raise ComparisonFailed(f"no function {name!r} here")
    try:
        said = function(primary, shadow)
    except Exception as error:
        raise ComparisonFailed(f"{name} raised {type(error).__name__}: {error}") from error
    if not isinstance(said, bool):
        raise ComparisonFailed(f"{name} returned {type(said).__name__}, not a bool")
    return said


def _bytes(output: Any) -> bytes:
    try:
        return _encode(output)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise ComparisonFailed(f"an output cannot be encoded: {error}") from error

"""Hypothesis strategies for any event class, built from its fields."""

from __future__ import annotations

import types
from datetime import UTC, datetime
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from events.event import Event

_INT = st.integers(min_value=-(2**63), max_value=2**63 - 1)
_FLOAT = st.floats(allow_nan=False, allow_infinity=False)
_JSON = st.recursive(
    st.none() | st.booleans() | _INT | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=4,
)
_PLAIN: dict[Any, st.SearchStrategy[Any]] = {
    str: st.text(max_size=20),
    int: _INT,
    float: _FLOAT,
    bool: st.booleans(),
    bytes: st.binary(max_size=20),
    type(None): st.none(),
    datetime: st.datetimes(timezones=st.just(UTC)),
    Any: _JSON,
}


def event_strategy(event: type[Event]) -> st.SearchStrategy[Event]:
    return _of(event)


def _of(hint: Any) -> st.SearchStrategy[Any]:
    if hint in _PLAIN:
        return _PLAIN[hint]
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        hints = get_type_hints(hint)
        fields = {f.name: _of(hints[f.name]) for f in msgspec.structs.fields(hint)}
        return st.builds(hint, **fields)
    arguments = get_args(hint)
    match get_origin(hint):
        case origin if origin is Literal:
            return st.sampled_from(arguments)
        case origin if origin in (Union, types.UnionType):
            return st.one_of([_of(argument) for argument in arguments])
        case origin if origin is tuple and Ellipsis not in arguments:
            return st.tuples(*map(_of, arguments))
        case origin if origin is tuple:
            return st.lists(_of(arguments[0]), max_size=3).map(tuple)
        case origin if origin is list:
            return st.lists(_of(arguments[0]), max_size=3)
        case origin if origin is dict:
            return st.dictionaries(_of(arguments[0]), _of(arguments[1]), max_size=3)
        case _:
            raise TypeError(f"no strategy for {hint!r}")

"""What a version answered, as tensors of the Open Inference Protocol.

Versions answer anything that JSON can hold and declare no tensors; `derived` says what becomes of
which value, and how a version that cares says so itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any, Final

import msgspec

from handlers.http.problems import Rejected
from handlers.http.tensors import (
    DIMENSIONS_MAX,
    Datatype,
    Tensor,
    check_shape,
    checked,
    flattened,
)

_UINT64_MAX: Final = 2**64 - 1
_INT64_MIN: Final = -(2**63)
_INT64_MAX: Final = 2**63 - 1
_DESCRIPTION: Final = frozenset({"datatype", "shape", "data"})


def outputs_of(outputs: Any) -> list[Tensor]:
    """What a version answered, as tensors: each member of an object; anything else as `output`.

    Raises ValueError for a tensor that the version describes wrongly.
    """
    members = outputs if isinstance(outputs, dict) else {"output": outputs}
    return [derived(str(name), value) for name, value in members.items()]


def derived(name: str, value: Any) -> Tensor:
    """One answered value as a tensor.

    `{"datatype", "shape", "data"}` is what it says. Else arrays, all of one length on each level,
    give the shape, a bare value `[1]`, and the elements the datatype: booleans BOOL, integers INT64
    (UINT64 if one needs it), numbers FP64, texts and bytes BYTES; no elements at all FP64. Whatever
    is none of these (objects, nulls, ragged or mixed arrays) is its JSON, one element of BYTES.
    Raises ValueError for a wrong description.
    """
    if isinstance(value, dict) and value.keys() == _DESCRIPTION:
        return _described(name, value)
    flat, shape = _measured(value)
    datatype = _datatype_of(flat)
    if datatype is None:
        return Tensor(name=name, datatype="BYTES", shape=(1,), values=[_json(value)])
    return Tensor(name=name, datatype=datatype, shape=shape, values=flat)


def _described(name: str, value: Mapping[str, Any]) -> Tensor:
    try:
        datatype = msgspec.convert(value["datatype"], Datatype)
        shape = msgspec.convert(value["shape"], tuple[int, ...])
        count = check_shape(shape, path="shape")
        flat = flattened(msgspec.convert(value["data"], list[Any]), shape, path="data")
        if len(flat) != count:
            raise ValueError(f"{len(flat)} elements; the shape asks for {count}")
        if datatype != "BYTES":
            flat = checked(flat, datatype, path="data").tolist()
        elif not all(isinstance(element, str | bytes) for element in flat):
            raise ValueError("an element of BYTES is no text")
    except (msgspec.ValidationError, Rejected, ValueError) as error:
        raise ValueError(f"output {name!r} is no tensor: {error}") from None
    return Tensor(name=name, datatype=datatype, shape=shape, values=flat)


def _measured(value: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The elements and the shape; one element, of whatever kind, if it is not regular."""
    if not isinstance(value, list):
        return [value], (1,)
    level: list[Any] = [value]
    shape: list[int] = []
    while level and all(isinstance(each, list) for each in level):
        lengths = {len(each) for each in level}
        if len(lengths) > 1 or len(shape) == DIMENSIONS_MAX:
            return [value], (1,)
        shape.append(lengths.pop())
        level = list(chain.from_iterable(level))
    return level, tuple(shape)


def _datatype_of(flat: list[Any]) -> Datatype | None:
    kinds = {type(element) for element in flat}
    if kinds == {bool}:
        return "BOOL"
    if kinds == {int}:
        return _integer_datatype(min(flat), max(flat))
    if kinds <= {int, float}:
        return "FP64"
    return "BYTES" if kinds <= {str, bytes} else None


def _integer_datatype(least: int, most: int) -> Datatype | None:
    if least >= _INT64_MIN and most <= _INT64_MAX:
        return "INT64"
    return "UINT64" if least >= 0 and most <= _UINT64_MAX else None


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

"""Tensors of the Open Inference Protocol: to what versions take, and from what they answer.

In: nested lists in row-major order, as deep as the shape is long (a shape of no dimensions is the
bare value), of booleans, integers, floats or texts. Numbers have passed through their datatype: an
FP16 of 0.1 arrives as 0.0999755859375. An element of BYTES is text if it is UTF-8, else bytes.

Out: `handlers.http.tensor_outputs`. What a client can get wrong is `invalid`, by the path
of the member; what a version can get wrong is ValueError.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, TypeAlias, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from handlers.http.problems import invalid

Datatype: TypeAlias = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]
DIMENSIONS_MAX: Final = 32
ELEMENTS_MAX: Final = 2**24
"""Of one tensor, counting an empty dimension as one."""
LISTS_MAX: Final = 2**20
"""Of one tensor when nested. A shape costs a client nothing, and each list of it costs us 64 B."""
LENGTH_BYTES: Final = 4
"""Before each element of BYTES in binary form, little-endian."""

_DTYPES: Final[Mapping[str, np.dtype[Any]]] = MappingProxyType(
    {
        "BOOL": np.dtype("?"),
        "UINT8": np.dtype("<u1"),
        "UINT16": np.dtype("<u2"),
        "UINT32": np.dtype("<u4"),
        "UINT64": np.dtype("<u8"),
        "INT8": np.dtype("<i1"),
        "INT16": np.dtype("<i2"),
        "INT32": np.dtype("<i4"),
        "INT64": np.dtype("<i8"),
        "FP16": np.dtype("<f2"),
        "BF16": np.dtype("<u2"),  # numpy has none: its bits
        "FP32": np.dtype("<f4"),
        "FP64": np.dtype("<f8"),
    }
)


class Tensor(msgspec.Struct, frozen=True, kw_only=True):
    """One output: `values` are its elements in row-major order, fit for its datatype."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    values: Sequence[Any]


def check_shape(shape: Sequence[int], *, path: str) -> int:
    """How many elements the shape asks for. Raises Rejected for one that is out of bounds."""
    if len(shape) > DIMENSIONS_MAX:
        raise invalid({path: f"more than {DIMENSIONS_MAX} dimensions"})
    if any(dimension < 0 for dimension in shape):
        raise invalid({path: "a dimension is below 0"})
    if prod(max(dimension, 1) for dimension in shape) > ELEMENTS_MAX:
        raise invalid({path: f"more than {ELEMENTS_MAX} elements"})
    lists = 0
    for level in range(len(shape)):
        lists += prod(shape[:level])
        if lists > LISTS_MAX:
            raise invalid({path: f"more than {LISTS_MAX} lists when nested"})
    return prod(shape)


def from_json(data: Any, datatype: Datatype, shape: Sequence[int], *, path: str) -> Any:
    """Nested lists out of JSON, flat or nested itself. Raises Rejected."""
    count = check_shape(shape, path=f"{path}.shape")
    if not isinstance(data, list):
        raise invalid({f"{path}.data": "not an array"})
    flat = flattened(data, shape, path=f"{path}.data")
    if len(flat) != count:
        raise invalid({f"{path}.data": f"{len(flat)} elements; the shape asks for {count}"})
    return _nested(checked(flat, datatype, path=f"{path}.data"), datatype, shape)


def from_binary(data: memoryview, datatype: Datatype, shape: Sequence[int], *, path: str) -> Any:
    """Nested lists out of a tensor's binary form. Raises Rejected."""
    count = check_shape(shape, path=f"{path}.shape")
    if datatype == "BYTES":
        return _nested(_split_bytes(data, count, path=path), datatype, shape)
    dtype = _DTYPES[datatype]
    if len(data) != count * dtype.itemsize:
        said = f"{len(data)} bytes; the shape asks for {count * dtype.itemsize}"
        raise invalid({f"{path}.parameters.binary_data_size": said})
    if datatype == "BOOL":
        return _nested(np.frombuffer(data, np.uint8) != 0, datatype, shape)
    values: NDArray[Any] = np.frombuffer(data, dtype)
    return _nested(_widened(values) if datatype == "BF16" else values, datatype, shape)


def to_binary(tensor: Tensor) -> bytes:
    """The tensor's binary form."""
    if tensor.datatype == "BYTES":
        elements = (_as_bytes(value) for value in tensor.values)
        return b"".join(len(e).to_bytes(LENGTH_BYTES, "little") + e for e in elements)
    if tensor.datatype == "BF16":
        return _narrowed(np.array(tensor.values, np.float32)).tobytes()
    return np.array(tensor.values, _DTYPES[tensor.datatype]).tobytes()


def to_json(tensor: Tensor) -> list[Any]:
    """The tensor's elements, flat, as JSON holds them. Raises ValueError."""
    if tensor.datatype == "BYTES":
        try:
            return [_as_bytes(value).decode() for value in tensor.values]
        except UnicodeDecodeError:
            raise ValueError(f"output {tensor.name!r} is no text: ask for it in binary") from None
    if tensor.datatype[:2] in ("FP", "BF") and not np.isfinite(tensor.values).all():
        raise ValueError(f"output {tensor.name!r} is not finite: ask for it in binary")
    return list(tensor.values)


def flattened(data: list[Any], shape: Sequence[int], *, path: str) -> list[Any]:
    """`data` if it is flat; else its elements, if it is nested as the shape says."""
    if len(shape) < 2 or not any(isinstance(element, list) for element in data):
        return data
    level: list[Any] = [data]
    for dimension in shape:
        if not all(isinstance(each, list) and len(each) == dimension for each in level):
            raise invalid({path: f"neither flat nor nested as {list(shape)}"})
        level = list(chain.from_iterable(level))
    return level


def checked(flat: list[Any], datatype: Datatype, *, path: str) -> Any:
    """The elements as an array of the datatype, or as texts. Raises Rejected."""
    try:
        values = msgspec.convert(flat, _ELEMENTS[datatype])
    except msgspec.ValidationError as error:
        raise invalid({path: str(error)}) from None
    if datatype == "BYTES":
        return values
    if datatype == "BF16":
        return _finite(_widened(_narrowed(_cast(values, np.dtype("<f4")))), path)
    array = _cast(values, _DTYPES[datatype])
    return _finite(array, path) if datatype.startswith("FP") else array


def _cast(values: list[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        return np.array(values, np.float64 if dtype.kind == "f" else dtype).astype(dtype)


def _finite(array: NDArray[Any], path: str) -> NDArray[Any]:
    if not np.isfinite(array).all():
        raise invalid({path: "a number is too large for the datatype"})
    return array


def _nested(flat: Any, datatype: Datatype, shape: Sequence[int]) -> Any:
    array: NDArray[Any]
    if datatype == "BYTES":
        array = np.empty(len(flat), dtype=object)
        array[:] = flat
    else:
        array = np.asarray(flat)
    return array.reshape(tuple(shape)).tolist()


def _split_bytes(data: memoryview, count: int, *, path: str) -> list[Any]:
    elements: list[Any] = []
    offset = 0
    while offset < len(data):
        begin = offset + LENGTH_BYTES
        offset = begin + int.from_bytes(data[offset:begin], "little")
        if offset > len(data) or begin > len(data) or len(elements) == count:
            said = f"not {count} elements, each after its length"
            raise invalid({f"{path}.parameters.binary_data_size": said})
        elements.append(_text_or_bytes(bytes(data[begin:offset])))
    if len(elements) != count:
        said = f"{len(elements)} elements; the shape asks for {count}"
        raise invalid({f"{path}.parameters.binary_data_size": said})
    return elements


def _widened(bits: NDArray[Any]) -> NDArray[Any]:
    """BF16 is the upper half of FP32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _narrowed(values: NDArray[Any]) -> NDArray[Any]:
    """To the nearest BF16, ties to even; a NaN stays one."""
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(np.isnan(values), 0x7FC0, rounded).astype("<u2")


def _text_or_bytes(element: bytes) -> str | bytes:
    try:
        return element.decode()
    except UnicodeDecodeError:
        return element


def _as_bytes(value: str | bytes) -> bytes:
    return value.encode("utf-8", "replace") if isinstance(value, str) else value


def _integers(datatype: str) -> Any:
    if datatype == "UINT64":  # constraints reach to 2**63 only; a body holds none above 2**64
        return list[Annotated[int, msgspec.Meta(ge=0)]]
    bounds = np.iinfo(_DTYPES[datatype])
    return list[Annotated[int, msgspec.Meta(ge=int(bounds.min), le=int(bounds.max))]]


_ELEMENTS: Final[Mapping[str, Any]] = MappingProxyType(
    {name: _integers(name) for name in get_args(Datatype) if "INT" in name}
    | dict.fromkeys(("FP16", "BF16", "FP32", "FP64"), list[float])
    | {"BOOL": list[bool], "BYTES": list[str]}
)
"""Datatype -> how its elements stand in JSON."""

"""Tensors in and out: every datatype, both forms, and nothing that a shape can break."""

from __future__ import annotations

import json
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handlers.http.problems import Rejected
from handlers.http.tensor_outputs import derived, outputs_of
from handlers.http.tensors import (
    DIMENSIONS_MAX,
    ELEMENTS_MAX,
    LISTS_MAX,
    Datatype,
    Tensor,
    from_binary,
    from_json,
    to_binary,
    to_json,
)

DATATYPES: tuple[Datatype, ...] = get_args(Datatype)
INTEGERS = [name for name in DATATYPES if "INT" in name]
FLOATS = ["FP16", "BF16", "FP32", "FP64"]
NUMPY = {
    "BOOL": np.bool_,
    "FP16": np.float16,
    "FP32": np.float32,
    "FP64": np.float64,
    **{name: np.dtype(name.lower()) for name in INTEGERS},
}


def values_of(datatype: str) -> st.SearchStrategy[Any]:
    """Elements that the datatype holds exactly."""
    if datatype == "BOOL":
        return st.booleans()
    if datatype == "BYTES":
        return st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    if datatype == "BF16":
        bits = st.integers(0, 2**16 - 1).map(lambda b: np.uint32(b << 16).view(np.float32).item())
        return bits.filter(np.isfinite)
    if datatype in FLOATS:
        width = {"FP16": 16, "FP32": 32, "FP64": 64}[datatype]
        return st.floats(allow_nan=False, allow_infinity=False, width=width)
    bounds = np.iinfo(NUMPY[datatype])
    return st.integers(int(bounds.min), int(bounds.max))


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    datatype = draw(st.sampled_from(DATATYPES))
    shape = tuple(draw(st.lists(st.integers(0, 3), max_size=4)))
    count = int(np.prod(shape, dtype=int))
    values = draw(st.lists(values_of(datatype), min_size=count, max_size=count))
    return Tensor(name="x", datatype=datatype, shape=shape, values=values)


def nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    """By the definition of row-major order, slowly."""
    if not shape:
        return values[0]
    step = len(values) // shape[0] if shape[0] else 0
    return [nested(values[i * step : (i + 1) * step], shape[1:]) for i in range(shape[0])]


@given(tensors())
def test_flat_nested_and_binary_data_mean_the_same(tensor: Tensor) -> None:
    expected = nested(list(tensor.values), tensor.shape)
    flat = json.loads(json.dumps(to_json(tensor)))
    assert from_json(flat, tensor.datatype, tensor.shape, path="t") == expected
    binary = memoryview(to_binary(tensor))
    assert from_binary(binary, tensor.datatype, tensor.shape, path="t") == expected
    if tensor.shape:
        assert from_json(expected, tensor.datatype, tensor.shape, path="t") == expected


@given(tensors())
def test_binary_data_is_what_numpy_writes(tensor: Tensor) -> None:
    if tensor.datatype in NUMPY:
        assert to_binary(tensor) == np.array(tensor.values, NUMPY[tensor.datatype]).tobytes()


@given(tensors(), st.binary(max_size=3))
def test_binary_data_of_another_length_is_refused(tensor: Tensor, more: bytes) -> None:
    whole = to_binary(tensor)
    for data in (whole + b"\0" + more, whole[:-1]):
        if data != whole:
            with pytest.raises(Rejected):
                from_binary(memoryview(data), tensor.datatype, tensor.shape, path="t")


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.binary(max_size=40),
    st.sampled_from(DATATYPES),
    st.lists(st.integers(-2, 2**64), max_size=5) | st.lists(st.integers(-1, 4), max_size=40),
)
def test_no_bytes_and_no_shape_do_anything_but_fit_or_be_refused(
    data: bytes, datatype: Datatype, shape: list[int]
) -> None:
    try:
        from_binary(memoryview(data), datatype, shape, path="t")
    except Rejected as refused:
        assert refused.code == "invalid"


@pytest.mark.slow
@settings(max_examples=200)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=2),
        max_leaves=8,
    ),
    st.sampled_from(DATATYPES),
    st.lists(st.integers(-1, 3), max_size=4),
)
def test_no_json_and_no_shape_do_anything_but_fit_or_be_refused(
    data: Any, datatype: Datatype, shape: list[int]
) -> None:
    try:
        from_json(data, datatype, shape, path="t")
    except Rejected as refused:
        assert refused.code == "invalid"


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ([-1], "below 0"),
        ([2**63], "elements"),
        ([2**64 - 1, 2**64 - 1], "elements"),
        ([0, ELEMENTS_MAX + 1], "elements"),
        ([LISTS_MAX + 1, 1], "lists"),
        ([LISTS_MAX // 16] + [1] * 20, "lists"),
        ([1] * (DIMENSIONS_MAX + 1), "dimensions"),
    ],
)
def test_a_shape_that_costs_its_sender_nothing_costs_us_nothing(
    shape: list[int], said: str
) -> None:
    with pytest.raises(Rejected, match=said):
        from_binary(memoryview(b""), "BOOL", shape, path="t")


@pytest.mark.parametrize("datatype", INTEGERS)
def test_an_integer_beyond_its_datatype_is_refused(datatype: Datatype) -> None:
    bounds = np.iinfo(NUMPY[datatype])
    for edge in (int(bounds.min), int(bounds.max)):
        assert from_json([edge], datatype, [1], path="t") == [edge]
    with pytest.raises(Rejected):
        from_json([int(bounds.min) - 1], datatype, [1], path="t")
    if datatype != "UINT64":  # a body that holds more is refused as a whole
        with pytest.raises(Rejected):
            from_json([int(bounds.max) + 1], datatype, [1], path="t")


@pytest.mark.parametrize(
    ("datatype", "beyond"), [("FP16", 65520.0), ("FP32", 1e39), ("BF16", 1e39)]
)
def test_a_float_beyond_its_datatype_is_refused(datatype: Datatype, beyond: float) -> None:
    with pytest.raises(Rejected, match="too large"):
        from_json([beyond], datatype, [1], path="t")


def test_numbers_pass_through_their_datatype() -> None:
    assert from_json([0.1], "FP16", [1], path="t") == [0.0999755859375]
    assert from_json([0.1], "FP32", [1], path="t") == [np.float32(0.1).item()]
    assert from_json([1.00390625], "BF16", [1], path="t") == [1.0]  # a tie goes to the even one
    assert from_json([1, 2.5], "FP64", [2], path="t") == [1.0, 2.5]


@pytest.mark.parametrize(
    ("data", "datatype"),
    [
        ([1], "BOOL"),
        ([True], "INT8"),
        ([1.0], "INT8"),
        (["1"], "FP32"),
        ([1], "BYTES"),
        ([None], "BYTES"),
        ([[1]], "INT8"),
        ({"0": 1}, "INT8"),
        ([{}], "FP64"),
    ],
)
def test_elements_of_another_kind_are_refused(data: Any, datatype: Datatype) -> None:
    with pytest.raises(Rejected):
        from_json(data, datatype, [1], path="t")


def test_bytes_that_are_no_text_stay_bytes() -> None:
    data = memoryview(b"\x02\0\0\0ok\x02\0\0\0\xff\xfe\0\0\0\0")
    assert from_binary(data, "BYTES", [3], path="t") == ["ok", b"\xff\xfe", ""]


@pytest.mark.parametrize(
    "data",
    [b"\x01", b"\x05\0\0\0ab", b"\xff\xff\xff\xffab", b"", b"\x01\0\0\0a\x01\0\0\0b\x01\0\0\0c"],
)
def test_bytes_that_do_not_hold_what_they_say_are_refused(data: bytes) -> None:
    with pytest.raises(Rejected):
        from_binary(memoryview(data), "BYTES", [2], path="t")


def test_ones_that_are_no_booleans_are_true() -> None:
    assert from_binary(memoryview(b"\0\1\7"), "BOOL", [3], path="t") == [False, True, True]


# ---- what versions answer


@pytest.mark.parametrize(
    ("value", "datatype", "shape", "values"),
    [
        (True, "BOOL", (1,), [True]),
        (7, "INT64", (1,), [7]),
        (2**63, "UINT64", (1,), [2**63]),
        (0.5, "FP64", (1,), [0.5]),
        ("hi", "BYTES", (1,), ["hi"]),
        (b"\xff", "BYTES", (1,), [b"\xff"]),
        ([1, 2], "INT64", (2,), [1, 2]),
        ([1, 2.5], "FP64", (2,), [1, 2.5]),
        ([-1, 2**63], "BYTES", (1,), ["[-1,9223372036854775808]"]),
        ([[True], [False]], "BOOL", (2, 1), [True, False]),
        ([["a", "b"]], "BYTES", (1, 2), ["a", "b"]),
        ([], "FP64", (0,), []),
        ([[], []], "FP64", (2, 0), []),
        ([[1], [2, 3]], "BYTES", (1,), ["[[1],[2,3]]"]),
        ([1, "a"], "BYTES", (1,), ['[1,"a"]']),
        ([1, True], "BYTES", (1,), ["[1,true]"]),
        (None, "BYTES", (1,), ["null"]),
        ({"a": [1]}, "BYTES", (1,), ['{"a":[1]}']),
        ({"datatype": "FP16", "shape": [2, 1], "data": [1, 2]}, "FP16", (2, 1), [1.0, 2.0]),
        ({"datatype": "INT8", "shape": [1, 2], "data": [[1, 2]]}, "INT8", (1, 2), [1, 2]),
        ({"datatype": "BYTES", "shape": [1], "data": ["x"]}, "BYTES", (1,), ["x"]),
    ],
)
def test_an_answered_value_is_the_tensor_that_it_looks_like(
    value: Any, datatype: str, shape: tuple[int, ...], values: list[Any]
) -> None:
    tensor = derived("x", value)
    assert (tensor.datatype, tensor.shape, list(tensor.values)) == (datatype, shape, values)
    assert [type(each) for each in tensor.values] == [type(each) for each in values]
    to_binary(tensor)


@pytest.mark.parametrize(
    "wrong",
    [
        {"datatype": "FP8", "shape": [1], "data": [1]},
        {"datatype": "FP16", "shape": [2], "data": [1]},
        {"datatype": "FP16", "shape": [-1], "data": []},
        {"datatype": "INT8", "shape": [1], "data": [300]},
        {"datatype": "BYTES", "shape": [1], "data": [7]},
        {"datatype": "INT8", "shape": 1, "data": [1]},
        {"datatype": "INT8", "shape": [1], "data": 1},
    ],
)
def test_a_tensor_that_is_described_wrongly_is_none(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="output 'x' is no tensor"):
        derived("x", wrong)


def test_members_are_outputs_and_anything_else_is_one() -> None:
    assert [tensor.name for tensor in outputs_of({"a": 1, "b": [2]})] == ["a", "b"]
    assert [tensor.name for tensor in outputs_of([1, 2])] == ["output"]


@pytest.mark.parametrize("value", [float("nan"), [1.0, float("inf")]])
def test_what_json_cannot_hold_is_answered_in_binary_only(value: Any) -> None:
    tensor = derived("x", value)
    with pytest.raises(ValueError, match="binary"):
        to_json(tensor)
    assert len(to_binary(tensor)) == 8 * len(tensor.values)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["datatype", "shape", "data", "other"]), inner, max_size=4
            )
        ),
    )
)
def test_whatever_a_version_answers_is_a_tensor_or_wrongly_described(value: Any) -> None:
    try:
        tensor = derived("x", value)
    except ValueError:
        return
    assert len(tensor.values) == int(np.prod(tensor.shape, dtype=object))
    to_binary(tensor)

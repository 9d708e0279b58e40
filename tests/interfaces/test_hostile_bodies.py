"""Whatever arrives at `/v2` and `/ofrep`: an answer, or a problem that is its sender's."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from handlers.http.tensor_bodies import JSON_LENGTH_HEADER, TENSORS_MAX
from handlers.http.tensors import DIMENSIONS_MAX
from tests.http.test_problems import checked
from tests.interfaces.test_tensors import DATATYPES

INFER = "/v2/models/shapes/infer"
BY_VERSION = "/v2/models/shapes/versions/1.0.0/infer"
hostile = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**65), 2**65)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
anything = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)
dimensions = st.integers(-2, 3) | st.integers(-(2**65), 2**65)
data = anything | st.lists(scalars, max_size=6) | st.lists(st.lists(scalars, max_size=3))
parameters = st.fixed_dictionaries(
    {},
    optional={
        "binary_data_size": st.integers(-1, 40) | scalars,
        "binary_data": st.booleans() | scalars,
        "classification": scalars,
    },
)
tensors = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y"]) | scalars,
        "shape": st.lists(dimensions, max_size=4) | anything,
        "datatype": st.sampled_from([*DATATYPES, "FP8", "bool"]) | scalars,
        "parameters": parameters | anything,
        "data": data,
    },
)
requests = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=4) | scalars,
        "inputs": st.lists(tensors, max_size=3) | anything,
        "outputs": st.lists(tensors, max_size=2) | anything,
        "parameters": st.fixed_dictionaries(
            {},
            optional={
                "key": scalars,
                "binary_data_output": scalars,
                "as": st.sampled_from(DATATYPES),
                "say": anything,
            },
        )
        | anything,
    },
)
likely = st.builds(
    lambda shape, datatype, blob, size, out: (
        {
            "inputs": [
                {
                    "name": "x",
                    "shape": shape,
                    "datatype": datatype,
                    "parameters": {"binary_data_size": len(blob) if size is None else size},
                }
            ],
            "parameters": {"binary_data_output": out},
        },
        blob,
    ),
    st.lists(dimensions, max_size=3),
    st.sampled_from(DATATYPES),
    st.binary(max_size=32),
    st.none() | st.integers(0, 40) | st.integers(2**63, 2**64 - 1),
    st.booleans(),
)


def held(response: httpx.Response) -> dict[str, Any]:
    """The answer, or the problem: never a defect of ours."""
    if response.status_code == 200:
        length = response.headers.get(JSON_LENGTH_HEADER)
        content = response.content if length is None else response.content[: int(length)]
        answer: dict[str, Any] = json.loads(content)
        sizes = [o.get("parameters", {}).get("binary_data_size", 0) for o in answer["outputs"]]
        assert len(response.content) - len(content) == sum(sizes)
        return answer
    assert response.status_code in (400, 502), response.text
    return checked(response, "invalid" if response.status_code == 400 else "runtime_failed")


@pytest.mark.slow
@hostile
@given(request=requests, blob=st.binary(max_size=32), split=st.booleans())
async def test_no_request_makes_it_fail(
    http: httpx.AsyncClient, request: dict[str, Any], blob: bytes, split: bool
):
    header = json.dumps(request).encode()
    headers = {JSON_LENGTH_HEADER: str(len(header))} if split else {}
    for path in (INFER, BY_VERSION):
        answer = held(await http.post(path, content=header + blob, headers=headers))
        assert "error" in answer or "outputs" in answer


@pytest.mark.slow
@hostile
@given(likely)
async def test_no_binary_tensor_makes_it_fail(
    http: httpx.AsyncClient, sent: tuple[dict[str, Any], bytes]
):
    request, blob = sent
    header = json.dumps(request).encode()
    headers = {JSON_LENGTH_HEADER: str(len(header))}
    held(await http.post(INFER, content=header + blob, headers=headers))


@pytest.mark.slow
@hostile
@given(
    body=st.binary(max_size=60),
    length=st.none() | st.integers(-1, 70).map(str) | st.text("0123456789+-_ x", max_size=30),
)
async def test_no_bytes_make_it_fail(http: httpx.AsyncClient, body: bytes, length: str | None):
    headers = {} if length is None else {JSON_LENGTH_HEADER: length.strip()}
    checked(await http.post(INFER, content=body, headers=headers), "invalid")


@pytest.mark.slow
@hostile
@given(
    body=st.binary(max_size=60) | anything.map(lambda each: json.dumps(each).encode()),
    path=st.sampled_from(
        [
            "/v2/repository/index",
            "/v2/repository/models/nothing/load",
            "/v2/repository/models/nothing/unload",
        ]
    ),
)
async def test_no_bytes_make_the_repository_fail(http: httpx.AsyncClient, body: bytes, path: str):
    response = await http.post(path, content=body)
    assert response.status_code in (200, 400, 404), response.text


@pytest.mark.slow
@hostile
@given(
    body=st.one_of(
        st.binary(max_size=60),
        anything.map(lambda each: json.dumps(each).encode()),
        st.dictionaries(st.sampled_from(["targetingKey", "tier"]), anything).map(
            lambda context: json.dumps({"context": context}).encode()
        ),
    ),
    path=st.sampled_from(["/ofrep/v1/evaluate/flags", "/ofrep/v1/evaluate/flags/chat"]),
    tag=st.none() | st.text(st.characters(codec="ascii", exclude_categories=["C"]), max_size=20),
)
async def test_no_context_makes_an_evaluation_fail(
    http: httpx.AsyncClient, body: bytes, path: str, tag: str | None
):
    headers = {} if tag is None else {"If-None-Match": tag.strip()}
    response = await http.post(path, content=body, headers=headers)
    if response.status_code not in (200, 304):
        assert "errorCode" in checked(response, "invalid")


def a_tensor(**changes: Any) -> dict[str, Any]:
    tensor = {"name": "x", "shape": [1], "datatype": "INT32", "data": [1]} | changes
    return {"inputs": [{name: each for name, each in tensor.items() if each is not None}]}


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({}, "inputs"),
        ({"inputs": []} | {"colour": 1}, "colour"),
        (a_tensor(datatype="INT128"), "inputs[0].datatype"),
        (a_tensor(shape=[-1]), "inputs[0].shape[0]"),
        (a_tensor(shape=[2]), "inputs[0].data"),
        (a_tensor(shape=[2**63]), "inputs[0].shape"),
        (a_tensor(shape=[1] * (DIMENSIONS_MAX + 1)), "inputs[0].shape"),
        (a_tensor(shape=None), "inputs[0].shape"),
        (a_tensor(data=None), "inputs[0]"),
        (a_tensor(data=[2**31]), "inputs[0].data"),
        (a_tensor(parameters={"binary_data_size": 4}), "inputs[0]"),
        (
            a_tensor(data=None, parameters={"binary_data_size": 4}),
            "inputs[0].parameters.binary_data_size",
        ),
        (
            a_tensor(parameters={"shared_memory_region": "r"}),
            "inputs[0].parameters.shared_memory_region",
        ),
        ({"inputs": a_tensor()["inputs"] * 2}, "inputs[1].name"),
        ({"inputs": a_tensor()["inputs"] * (TENSORS_MAX + 1)}, "inputs"),
        (a_tensor() | {"outputs": [{"name": "x"}, {"name": "x"}]}, "outputs[1].name"),
        (a_tensor() | {"outputs": [{"name": "z"}]}, "outputs[0].name"),
        (a_tensor() | {"parameters": {"key": 7}}, "parameters.key"),
        (
            a_tensor() | {"parameters": {"binary_data_output": 1}},
            "parameters.binary_data_output",
        ),
    ],
)
async def test_the_problem_names_the_member(
    http: httpx.AsyncClient, request_: dict[str, Any], field: str
):
    problem = checked(await http.post(INFER, json=request_), "invalid")
    assert problem["error"] == problem["detail"]
    assert list(problem["fields"]) == [field]


async def test_a_body_that_is_packed_or_too_large_is_refused(http: httpx.AsyncClient):
    packed = await http.post(INFER, json=a_tensor(), headers={"Content-Encoding": "gzip"})
    assert "Content-Encoding" in checked(packed, "invalid")["fields"]
    blob = b"\0" * 9 * 1024 * 1024
    headers = {JSON_LENGTH_HEADER: "10"}
    checked(await http.post(INFER, content=blob, headers=headers), "too_large")


@pytest.mark.parametrize(
    ("sizes", "blob", "field"),
    [
        ((4,), b"\0\0\0", "inputs[0].parameters.binary_data_size"),
        ((4, 4), b"\0" * 7, "inputs[1].parameters.binary_data_size"),
        ((4,), b"\0" * 5, "body"),
        ((3,), b"\0" * 4, "inputs[0].parameters.binary_data_size"),
        ((2**62,), b"\0" * 4, "inputs[0].parameters.binary_data_size"),
        ((), b"\0", "body"),
    ],
)
async def test_binary_data_that_is_cut_off_or_left_over_is_refused(
    http: httpx.AsyncClient, sizes: tuple[int, ...], blob: bytes, field: str
):
    tensors = [
        {
            "name": f"x{i}",
            "shape": [1],
            "datatype": "INT32",
            "parameters": {"binary_data_size": size},
        }
        for i, size in enumerate(sizes)
    ]
    header = json.dumps({"inputs": tensors}).encode()
    headers = {JSON_LENGTH_HEADER: str(len(header))}
    problem = checked(await http.post(INFER, content=header + blob, headers=headers), "invalid")
    assert list(problem["fields"]) == [field]

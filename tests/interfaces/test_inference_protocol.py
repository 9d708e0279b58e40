"""The official Triton client against a whole system, and what a plain client sees beside it."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import httpx
import numpy as np
import pytest
from ml_dtypes import bfloat16
from tritonclient.http import InferInput, InferRequestedOutput

from handlers.http.inference import INFERENCE_HEADERS
from tests.http.test_problems import checked
from tests.interfaces.triton import Triton, a_request, an_input
from tests.interfaces.windows import first_window
from tests.system import System

ONE = np.array([1], dtype=np.int32)
ARRAYS: dict[str, Any] = {
    "BOOL": np.array([[True, False], [False, True]]),
    "UINT8": np.array([0, 255], dtype=np.uint8),
    "UINT16": np.array([[0], [65535]], dtype=np.uint16),
    "UINT32": np.array([0, 2**32 - 1], dtype=np.uint32),
    "UINT64": np.array([0, 2**64 - 1], dtype=np.uint64),
    "INT8": np.array([-128, 127], dtype=np.int8),
    "INT16": np.array([-(2**15), 2**15 - 1], dtype=np.int16),
    "INT32": np.arange(24, dtype=np.int32).reshape(2, 3, 4),
    "INT64": np.array([-(2**63), 2**63 - 1], dtype=np.int64),
    "FP16": np.array([0.1, -65504], dtype=np.float16),
    "BF16": np.array([1.0, -2.5, 3.0e38], dtype=bfloat16),
    "FP32": np.array([[0.1, 3.4e38]], dtype=np.float32),
    "FP64": np.array([0.1, 1e300], dtype=np.float64),
    "BYTES": np.array([[b"hallo", "grüß".encode()]], dtype=np.object_),
}
FORMS = [
    (datatype, binary_in, binary_out)
    for datatype in ARRAYS
    for binary_in in (True, False)
    for binary_out in (True, False)
    # The client itself sends and reads those two in binary form only.
    if datatype not in ("FP16", "BF16") or (binary_in and binary_out)
]


# ---- the server and its models


async def test_the_server_lives_is_ready_and_says_what_it_is(triton: Triton):
    assert await triton.call("is_server_live")
    assert await triton.call("is_server_ready")
    server = await triton.call("get_server_metadata")
    assert server["name"] == "switchback"
    assert {"binary_tensor_data", "model_repository"} <= set(server["extensions"])


async def test_an_endpoint_is_a_model_that_is_ready(triton: Triton):
    assert await triton.call("get_model_metadata", "chat") == {
        "name": "chat",
        "versions": ["1.0.0"],
        "platform": "switchback_echo",
        "inputs": [],
        "outputs": [],
    }
    assert await triton.call("is_model_ready", "chat")
    assert await triton.call("is_model_ready", "chat", "1.0.0")
    assert not await triton.call("is_model_ready", "chat", "3.0.0")
    assert not await triton.call("is_model_ready", "nothing")
    error = await triton.refused("get_model_metadata", "nothing")
    assert (error.status(), error.message()) == ("404", "there is no endpoint 'nothing'")


async def test_health_needs_no_key_and_models_do(served: System):
    async with httpx.AsyncClient(base_url=served.url) as stranger:
        for path in ("/v2", "/v2/health/live", "/v2/health/ready"):
            assert (await stranger.get(path)).status_code == 200
        problem = checked(await stranger.get("/v2/models/chat"), "unauthenticated")
        assert problem["error"] == problem["detail"]


# ---- tensors


@pytest.mark.parametrize(("datatype", "binary_in", "binary_out"), FORMS)
async def test_every_datatype_comes_back_as_it_went(
    triton: Triton, datatype: str, binary_in: bool, binary_out: bool
):
    sent = ARRAYS[datatype]
    result = await triton.infer(
        "shapes",
        [an_input("x", sent, datatype, binary=binary_in)],
        outputs=[InferRequestedOutput("x", binary_data=binary_out)],
        parameters={"as": datatype},
    )
    assert result.get_output("x")["datatype"] == datatype
    received = result.as_numpy("x")
    assert received.shape == sent.shape
    if datatype == "BYTES" and not binary_out:
        received = np.char.encode(received.astype(str))
    assert np.array_equal(received, sent)


async def test_bytes_that_are_no_text_reach_the_version_as_bytes(triton: Triton):
    sent = np.array([b"\xff\xd8\xff\xe0", b"text"], dtype=np.object_)
    result = await triton.infer("shapes", [an_input("x", sent, "BYTES")])
    assert result.as_numpy("x").tolist() == [b64encode(sent[0]), b"text"]


async def test_a_number_that_json_has_no_word_for_goes_in_binary(triton: Triton):
    sent = np.array([np.nan, np.inf, -0.0], dtype=np.float64)
    result = await triton.infer("chat", [an_input("x", sent, "FP64")])
    assert b'"x":[null,null,-0.0]' in result.as_numpy("inputs")[0]


async def test_what_a_version_does_not_describe_is_derived(triton: Triton):
    result = await triton.infer("chat", [an_input("x", ONE, "INT32")])
    assert result.as_numpy("answer").tolist() == [b"1.0.0"]
    assert result.as_numpy("inputs").tolist() == [b'{"x":[1]}']
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"]) == ("chat", "1.0.0")


async def test_outputs_come_in_the_order_that_was_asked_for_each_in_its_form(triton: Triton):
    inputs = [an_input(name, ONE, "INT32") for name in ("a", "b", "c")]
    wanted = [InferRequestedOutput("c"), InferRequestedOutput("a", binary_data=False)]
    result = await triton.infer("shapes", inputs, outputs=wanted)
    assert [output["name"] for output in result.get_response()["outputs"]] == ["c", "a"]
    assert "data" not in result.get_output("c") and result.get_output("a")["data"] == [1]
    assert result.as_numpy("c").tolist() == result.as_numpy("a").tolist() == [1]


async def test_the_clients_id_comes_back_and_ours_without_one(
    triton: Triton, http: httpx.AsyncClient
):
    result = await triton.infer("chat", [an_input("x", ONE, "INT32")], request_id="mine")
    assert result.get_response()["id"] == "mine"
    answer = await http.post("/v2/models/chat/infer", json=a_request())
    assert answer.json()["id"] == answer.headers["switchback-request-id"]


# ---- where requests go


async def test_the_key_decides_as_for_every_other_inference(served: System, triton: Triton):
    client = served.client
    await client.create_endpoint("keyed", model="fraud", version="1.0.0")
    await client.set_policy("keyed", {"split": {"1.0.0": 50, "2.0.0": 50}})
    seen: set[str] = set()
    for number in range(30):
        key = f"user-{number}"
        expected = (await client.infer("keyed", 1, key=key)).version
        inputs = [an_input("x", ONE, "INT32")]
        by_header = await triton.infer("keyed", inputs, headers={"Switchback-Key": key})
        by_parameter = await triton.infer(
            "keyed", inputs, parameters={"key": key}, headers={"Switchback-Key": "another"}
        )
        for result in (by_header, by_parameter):
            assert result.get_response()["model_version"] == expected
            assert result.as_numpy("answer").tolist() == [expected.encode()]
        seen.add(expected)
    assert seen == {"1.0.0", "2.0.0"}


async def test_attributes_come_from_their_header(served: System, triton: Triton):
    client = served.client
    await client.create_endpoint("ruled", model="fraud", version="1.0.0")
    beta = {"name": "beta", "when": {"attributes": {"tier": "beta"}}, "split": {"2.0.0": 1}}
    await client.set_policy("ruled", {"split": {"1.0.0": 1}, "rules": [beta]})
    inputs = [an_input("x", ONE, "INT32")]
    for header, version in (('{"tier":"beta"}', "2.0.0"), ('{"tier":"x"}', "1.0.0")):
        result = await triton.infer("ruled", inputs, headers={"Switchback-Attributes": header})
        assert result.get_response()["model_version"] == version
    error = await triton.refused(
        "infer", "ruled", inputs, headers={"Switchback-Attributes": '{"tier":1}'}
    )
    assert error.status() == "400" and "attributes" in error.message()


async def test_the_answer_proves_its_route(served: System, http: httpx.AsyncClient):
    answer = await http.post("/v2/models/chat/infer", json=a_request(parameters={"key": "k"}))
    assert all(name in answer.headers for name in INFERENCE_HEADERS)
    explained = await served.client.explain_receipt(answer.headers["switchback-receipt"])
    assert (explained["valid"], explained["version"]) == (True, "1.0.0")


async def test_a_version_may_be_asked_for_by_name_if_the_endpoint_holds_it_ready(
    served: System, triton: Triton, http: httpx.AsyncClient
):
    client = served.client
    await client.create_endpoint("held", model="fraud", version="1.0.0")
    await client.swap("held", to="2.0.0")
    inputs = [an_input("x", ONE, "INT32")]
    metadata = await triton.call("get_model_metadata", "held", "1.0.0")
    assert metadata["versions"] == ["1.0.0", "2.0.0"]
    for version in ("1.0.0", "2.0.0"):  # the way back, and what takes all traffic
        result = await triton.infer("held", inputs, model_version=version)
        assert result.as_numpy("answer").tolist() == [version.encode()]
    assert (await http.post("/v2/repository/models/fraud@3.0.0/load")).status_code == 200
    error = await triton.refused("infer", "held", inputs, model_version="3.0.0")
    assert error.status() == "404"
    answer = await http.post("/v2/models/held/versions/1.0.0/infer", json=a_request())
    assert answer.headers["switchback-version"] == "1.0.0"
    assert answer.headers["switchback-receipt"] == ""


async def test_who_asks_for_a_version_by_name_weighs_nothing_in_its_judgement(
    served: System, http: httpx.AsyncClient
):
    await served.client.create_endpoint("weighed", model="fraud", version="1.0.0")
    by_name = "/v2/models/weighed/versions/1.0.0/infer"
    for _ in range(5):
        assert (await http.post(by_name, json=a_request())).status_code == 200
    await http.post("/v2/models/weighed/infer", json=a_request())
    assert await first_window(served, "weighed") == {"1.0.0": 1}


# ---- errors


async def test_the_client_finds_the_error_that_the_problem_tells(triton: Triton):
    tensor = InferInput("x", [2], "INT32")
    tensor.set_data_from_numpy(np.array([1, 2], dtype=np.int32))
    tensor.set_shape([3])
    error = await triton.refused("infer", "chat", [tensor])
    assert error.status() == "400"
    assert "8 bytes; the shape asks for 12" in error.message()
    wanted = [InferRequestedOutput("nothing")]
    error = await triton.refused("infer", "chat", [an_input("x", ONE, "INT32")], outputs=wanted)
    assert "no such output" in error.message()


async def test_a_version_that_answers_no_tensor_has_failed(http: httpx.AsyncClient):
    said = {"x": {"datatype": "FP8", "shape": [1], "data": [1]}}
    answer = await http.post("/v2/models/shapes/infer", json=a_request(parameters={"say": said}))
    assert "output 'x' is no tensor" in checked(answer, "runtime_failed")["error"]

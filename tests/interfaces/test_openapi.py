"""What the open interfaces answer, held against the document that describes them."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator

TENSORS = {"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1.5]}]}
CONTEXT = {"context": {"targetingKey": "u"}}
NAMES = {"endpoint": "chat", "version": "1.0.0", "model": "fraud@1.0.0"}
CALLS: list[tuple[str, str, Any, int]] = [
    ("GET", "/v2", None, 200),
    ("GET", "/v2/health/live", None, 200),
    ("GET", "/v2/health/ready", None, 200),
    ("GET", "/v2/models/{endpoint}", None, 200),
    ("GET", "/v2/models/{endpoint}/ready", None, 200),
    ("GET", "/v2/models/{endpoint}/versions/{version}", None, 200),
    ("GET", "/v2/models/{endpoint}/versions/{version}/ready", None, 200),
    ("POST", "/v2/models/{endpoint}/infer", TENSORS, 200),
    ("POST", "/v2/models/{endpoint}/infer", {"inputs": 7}, 400),
    ("POST", "/v2/models/{endpoint}/versions/{version}/infer", TENSORS, 200),
    ("POST", "/v2/repository/index", {"ready": False}, 200),
    ("POST", "/v2/repository/models/{model}/load", {}, 200),
    ("POST", "/v2/repository/models/{model}/unload", {}, 409),
    ("POST", "/ofrep/v1/evaluate/flags/{endpoint}", CONTEXT, 200),
    ("POST", "/ofrep/v1/evaluate/flags/{endpoint}", {"context": {}}, 400),
    ("POST", "/ofrep/v1/evaluate/flags", CONTEXT, 200),
]


@pytest.mark.parametrize(("method", "template", "body", "status"), CALLS)
async def test_an_answer_fits_its_description(
    http: httpx.AsyncClient, method: str, template: str, body: Any, status: int
):
    document = (await http.get("/openapi.json")).json()
    answer = await http.request(method, template.format(**NAMES), json=body)
    assert answer.status_code == status, answer.text
    operation = document["paths"][template][method.lower()]
    described = operation["responses"][str(status)]
    if "$ref" in described:
        described = document["components"]["responses"][described["$ref"].rpartition("/")[2]]
    [(media, content)] = described["content"].items()
    assert answer.headers["content-type"] == media
    components = {"components": document["components"]}
    Draft202012Validator(content["schema"] | components).validate(answer.json())
    for name, header in described.get("headers", {}).items():
        assert name in answer.headers or header.get("required") is False
    if status == 200 and body is not None:
        asked = operation["requestBody"]["content"]["application/json"]["schema"]
        Draft202012Validator(asked | components).validate(body)


async def test_every_route_of_the_interfaces_is_called(http: httpx.AsyncClient):
    document = (await http.get("/openapi.json")).json()
    described = {
        (method.upper(), template)
        for template, item in document["paths"].items()
        for method in item
        if template.startswith(("/v2", "/ofrep"))
    }
    assert described == {(method, template) for method, template, _, _ in CALLS}
